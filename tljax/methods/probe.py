"""A shallow classifier on frozen features, solved at once; its strength by cross-validation.

One phase without steps: on entering it, the features of all labelled examples are gathered and the
classifier is fitted to them. Held-out examples of the same training data choose how strongly it is
regularised; what is evaluated on is never seen.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from tljax import shallow
from tljax.methods.networks import Classifier
from tljax.shallow import Probe, linear, neighbours, select
from tljax.types import Array, Method, Spec, solve

# Strengths to choose from: penalties of the mean loss on features of unit variance; numbers of
# neighbours; nothing.
PENALTIES = tuple(np.logspace(-6, 2, 17).tolist())
GRIDS: Mapping[str, tuple[float, ...]] = {
    **dict.fromkeys(('ridge', 'logistic', 'minibatch_logistic', 'svm'), PENALTIES),
    'neighbours': (1, 2, 3, 5, 8, 12, 20),
    'nearest_mean': (1,),
}
FOUND = 'probe'  # the role, without parameters, of what the phase finds


def build(
    config,
    spec: Spec,
    optimizer,
    *,
    probe: str = 'ridge',
    strengths: Sequence[float] = (),
    folds: int = 5,
) -> Method:
    """The method of a probe on the labelled stream 'source'.

    Features are divided by `spread`, and a penalty r is the strength lambda = r sum_i w_i of
    `tljax.shallow`: it weighs against the mean loss. So one grid serves few and many examples of
    any layer. A linear probe becomes the head.

    Args:
      config: the run's config: net, endpoint, pool.
      spec: what the data are.
      optimizer: not used.
      probe: of `tljax.shallow.PROBES`.
      strengths: to choose from; (): those of `GRIDS`.
      folds: of the cross-validation, alike in classes and drawn by the seed.

    Raises:
      ValueError: there is no such probe, a strength or a number of folds that cannot be, too few
        labels to choose among strengths, or another head.
    """
    del optimizer
    solver, count = shallow.probe(probe), spec.examples.get('source', 1)
    is_linear = solver.logits is linear.logits
    grid = tuple(strengths) or GRIDS[probe]
    if probe == 'neighbours' and not strengths:  # a fold leaves at least half of the examples
        grid = tuple(k for k in grid if k <= max(count // 2, 1))
    if (head := config.head.to_dict()) != {'name': 'linear'}:
        raise ValueError(f'head={head}: a probe is its own head; leave it as it is')
    check_choice(config, grid, folds)
    if probe == 'neighbours':
        neighbours.check_counts(grid)
    classifier, classes = Classifier.build(config, spec), len(spec.classes)

    def solved(features, labels, weights, key):
        """What is found: the strength and its curve, and the model."""
        options = {'classes': classes} | ({'key': key} if probe == 'minibatch_logistic' else {})
        train = select.Examples(features, labels, weights)
        held = select.folds(labels, weights, key, classes=classes, count=folds)
        choice = select.cross_validate(
            scaled(solver) if is_linear else solver, grid, train, held, **options
        )
        found = {'strength': choice.strength, 'curve': choice.curve}
        return found, choice.model._asdict()

    def init(key, spec):
        params, mutable = classifier.init(key, spec)
        if is_linear:
            found = {'strength': jnp.zeros(()), 'curve': jnp.zeros(len(grid))}
            return params, {**mutable, FOUND: found}
        width = params.pop('head')['kernel'].shape[0]
        like = ((count, width), jnp.float32), ((count,), jnp.int32), ((count,), jnp.float32)
        made = jax.eval_shape(solved, *(jax.ShapeDtypeStruct(*one) for one in like), key)
        found, model = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), made)
        return params, {**mutable, FOUND: found | {'model': model}}

    def fit(params, mutable, over, hp, key):
        del hp

        def look(batch):
            features, _ = classifier.features(params, mutable, batch['image'])
            return features, batch['label'], batch['valid'].astype(jnp.float32)

        found, model = solved(*over('source', look), key)
        if is_linear:
            head = {name: leaf[0] for name, leaf in model.items()}
            return {**params, 'head': head}, {**mutable, FOUND: found}
        return params, {**mutable, FOUND: found | {'model': model}}

    def predict(params, mutable, inputs):
        if is_linear:
            return classifier(params, mutable, inputs)[0]
        features, _ = classifier.features(params, mutable, inputs)
        model = neighbours.Neighbours(**mutable[FOUND]['model'])
        return {'logits': solver.logits(model, features)[0], 'features': features}

    def outcome(params, mutable):
        del params
        curve, strength = (mutable[FOUND][name] for name in ('curve', 'strength'))
        return {'strengths': jnp.asarray(grid), 'curve': curve, 'strength': strength}

    return Method(init, (solve('solve', fit),), predict, outcome)


def spread(features: Array, weights: Array) -> Array:
    """sqrt(sum_i w_i ||x_i - m||^2 / (D sum_i w_i)), m the mean: what one dimension varies by.

    Args:
      features: [N, D] float.
      weights: [N] of 0 or more.
    """
    share = weights / weights.sum()
    centred = features - share @ features
    return jnp.maximum(jnp.sqrt(share @ (centred**2).mean(axis=1)), 1e-12)


def scaled(solver: Probe) -> Probe:
    """The linear probe of features over their spread, its strengths penalties of the mean loss."""

    def fit(features, labels, strengths, weights, **options):
        scale = spread(features, weights)
        absolute = strengths * weights.sum()
        model = solver.fit(features / scale, labels, absolute, weights, **options)
        return model._replace(kernel=model.kernel / scale)

    return solver._replace(fit=fit)


def check_choice(config, grid: Sequence[float], folds: int) -> None:
    """Raises ValueError for folds or strengths that cannot be, or too few labels to choose by."""
    if not isinstance(folds, int) or folds < 2:
        raise ValueError(f'options.folds is {folds!r}; expected 2 or more')
    linear.check_strengths(np.asarray(grid))
    labels = config.members.labels_per_class or [config.data.streams.source.labels_per_class]
    if 1 in labels and len(grid) > 1:
        raise ValueError(
            'labels_per_class=1 leaves no example to choose among strengths by; give 2 or more, '
            'or one strength in options.strengths'
        )
