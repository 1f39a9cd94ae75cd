"""Zero-shot learning by closed forms: one phase without steps, its strengths by splits of classes.

On entering it, the features of all labelled examples are gathered; `shallow.zero_shot.choose` holds
out some of the seen classes, several times, to choose strengths and calibration, and projects with
all. Classes never seen have no part in that. All are `build(config, spec, optimizer)`; the
projection becomes the parameters of the role 'head'; and all have the options

- folds: how many splits of the seen classes.
- share: of the seen classes that a split holds out.
- strengths: those of the last step to choose from; () for the usual ones.
"""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from tljax.kernels import chi_squared_distances, compatibility, squared_distances
from tljax.methods.embedder import Embedder
from tljax.shallow import zero_shot as forms
from tljax.shallow.linear import check_strengths
from tljax.types import Array, Method, Spec, solve, unknown

FIRST = tuple(np.logspace(-2, 3, 6).tolist())
SECOND = tuple(np.logspace(-3, 3, 7).tolist())
DISTANCES = {'gaussian': squared_distances, 'chi_squared': chi_squared_distances}


def eszsl(
    config,
    spec: Spec,
    optimizer,
    *,
    kernel: str = 'linear',
    width: float = 1.0,
    first: Sequence[float] = FIRST,
    strengths: Sequence[float] = SECOND,
    folds: int = 5,
    share: float = 0.3,
) -> Method:
    """`shallow.zero_shot.eszsl`, on features or on a kernel exp(-d(x, y) / b).

    Args:
      kernel: 'linear', 'gaussian' (d is the squared distance), or 'chi_squared', of histograms.
      width: b over the mean distance of training examples.
      first: the strengths g.
      strengths: the strengths l.
    """
    if kernel != 'linear' and kernel not in DISTANCES:
        raise unknown('kernel', kernel, ('linear', *DISTANCES))
    if not width > 0:
        raise ValueError(f'options.width is {width}; expected a number over 0')
    form = forms.eszsl(kernel != 'linear')
    grids = tuple(first), tuple(strengths)
    return _solved(config, spec, form, DISTANCES.get(kernel), width, grids, folds, share)


def sae(
    config,
    spec: Spec,
    optimizer,
    *,
    strengths: Sequence[float] = SECOND,
    folds: int = 5,
    share: float = 0.3,
) -> Method:
    """`shallow.zero_shot.sae`; the nearest class by the cosine of projection and embedding."""
    grids = (1.0,), tuple(strengths)
    return _solved(config, spec, forms.sae(), None, 1.0, grids, folds, share)


def _solved(config, spec, form, distances, width, grids, folds: int, share: float) -> Method:
    """The phase that gathers features, chooses strengths and projects."""
    for grid in grids:
        check_strengths(np.asarray(grid))
    if not isinstance(folds, int) or folds < 1 or not 0 < share < 1:
        raise ValueError(
            f'folds={folds}, share={share}: expected 1 or more, and over 0 and under 1'
        )
    if len(spec.seen) < 4 and spec.seen:
        raise ValueError(f'{len(spec.seen)} classes are seen: 4 or more are needed to hold out two')
    embedder = Embedder.build(config, spec)

    def init(key, spec):
        params, mutable = embedder.init(key, spec)
        size, count = mutable['training']['mean'].shape[0], spec.examples.get('source', 1)
        like = (count if distances else size, spec.embeddings.vectors.shape[1])
        found = {
            'strengths': jnp.zeros(2),
            'curve': jnp.zeros(tuple(map(len, grids))),
            'harmonic': jnp.zeros(len(forms.CALIBRATIONS)),
        }
        if distances:
            found |= {'support': jnp.zeros((count, size)), 'width': jnp.ones(())}
        return {**params, 'head': {'kernel': jnp.zeros(like)}}, {**mutable, 'solved': found}

    def inputs_of(features: Array, found: Mapping[str, Array]) -> Array:
        if not distances:
            return features
        return jnp.exp(-distances(features, found['support']) / found['width'])

    def raw(params, mutable, images):
        """A kernel takes features as they are: histograms stay histograms."""
        take = embedder.classifier.features if distances else embedder.features
        return take(params, mutable, images)[0]

    def fit(params, mutable, over, hp, key):
        params, mutable = embedder.measure(params, mutable, over, hp, key)

        def look(batch):
            features = raw(params, mutable, batch['image'])
            return features, batch['label'], batch['valid'].astype(jnp.float32)

        features, labels, weights = over('source', look)
        found = dict(mutable['solved'])
        if distances:
            apart = distances(features, features)
            mean = weights @ apart @ weights / weights.sum() ** 2
            found |= {'support': features, 'width': width * mean}
            inputs = jnp.exp(-apart / found['width'])
        else:
            inputs = features
        choice = forms.choose(
            form,
            *(jnp.asarray(grid, jnp.float32) for grid in grids),
            forms.Examples(inputs, labels, weights),
            embedder.classes(mutable, 'training'),
            mutable['training']['seen'],
            key,
            folds=folds,
            share=share,
        )
        found |= {name: getattr(choice, name) for name in ('strengths', 'curve', 'harmonic')}
        training = {**mutable['training'], 'calibration': choice.calibration}
        head = {'kernel': choice.projection}
        return {**params, 'head': head}, {**mutable, 'training': training, 'solved': found}

    def predict(params, mutable, inputs):
        features = raw(params, mutable, inputs)
        projected = inputs_of(features, mutable['solved']) @ params['head']['kernel']
        classes = embedder.classes(mutable, 'candidates')
        scores = compatibility(projected, classes, form.similarity)
        return embedder.answer(scores, features, mutable)

    def outcome(params, mutable):
        del params
        found = mutable['solved']
        return {
            'strengths': jnp.asarray(grids[1]),
            'curve': found['curve'].max(axis=0),
            'first_strength': found['strengths'][0],
            'strength': found['strengths'][1],
            'harmonic': found['harmonic'].max(),
            'calibration': mutable['training']['calibration'],
        }

    return Method(init, (solve('solve', fit),), predict, outcome)
