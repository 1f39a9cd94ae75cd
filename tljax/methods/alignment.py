"""Shallow adaptation: closed forms align the features of two domains, and a probe classifies them.

Training on the source comes first, for config.steps; without steps the encoder is taken as it
comes. Then one phase without steps gathers the features of both domains, aligns them without
labels, and fits a linear probe to the source's, its strength by cross-validation on the source.
Features are first divided by the spread of the source's. All are `build(config, spec, optimizer)`,
and all have the options

- probe: a linear one of `tljax.shallow.PROBES`.
- strengths: to choose from; (): those of `methods.probe.GRIDS`.
- folds: of the cross-validation.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from tljax import shallow
from tljax.kernels import Gaussians
from tljax.methods import supervised
from tljax.methods.adaptation import check_streams
from tljax.methods.networks import Classifier
from tljax.methods.probe import GRIDS, check_choice, scaled, spread
from tljax.shallow import PROBES, Probe, alignment, linear, select
from tljax.shallow.alignment import Affine, Alignment, Components, transform
from tljax.types import Array, Key, Method, Spec, solve, unknown

FOUND = 'alignment'  # the role, without parameters, of what the phase finds
KERNELS = {'linear': None, 'gaussian': Gaussians('median', 1)}

Align = Callable[[tuple[Array, Array], tuple[Array, Array], Key], Alignment]


def coral_features(
    config,
    spec: Spec,
    optimizer,
    *,
    strength: float = 1.0,
    probe: str = 'ridge',
    strengths: Sequence[float] = (),
    folds: int = 5,
) -> Method:
    """CORAL on features: the source, whitened and coloured as the target.

    Sun, Feng and Saenko 2016, "Return of frustratingly easy domain adaptation", arXiv:1511.05547.

    Args:
      strength: of both covariances; see `shallow.alignment.coral`.
    """

    def align(source, target, key):
        del key
        (x, v), (y, w) = source, target
        return alignment.coral(x, y, v, w, strength=strength)

    return _aligned(config, spec, optimizer, align, None, probe, strengths, folds)


def subspace_alignment(
    config,
    spec: Spec,
    optimizer,
    *,
    dimensions: int = 20,
    probe: str = 'ridge',
    strengths: Sequence[float] = (),
    folds: int = 5,
) -> Method:
    """Subspace alignment: principal components of the source, turned into those of the target.

    Fernando et al. 2013, "Unsupervised visual domain adaptation using subspace alignment".

    Args:
      dimensions: of the subspaces.
    """

    def align(source, target, key):
        del key
        (x, v), (y, w) = source, target
        return alignment.subspaces(x, y, v, w, dimensions=dimensions)

    return _aligned(config, spec, optimizer, align, None, probe, strengths, folds)


def tca(
    config,
    spec: Spec,
    optimizer,
    *,
    dimensions: int = 20,
    kernel: str = 'gaussian',
    strength: float = 1.0,
    examples: int = 1000,
    probe: str = 'ridge',
    strengths: Sequence[float] = (),
    folds: int = 5,
) -> Method:
    """Transfer component analysis.

    Pan et al. 2011, "Domain adaptation via transfer component analysis".

    Args:
      dimensions: how many components.
      kernel: 'gaussian', of the median squared distance, or 'linear'.
      strength: of the regularisation; the paper's mu.
      examples: of each domain that the components are found from, drawn by the seed: time grows
        with the cube of their number.
    """
    if kernel not in KERNELS:
        raise unknown('kernel', kernel, KERNELS)
    options = {'dimensions': dimensions, 'kernel': KERNELS[kernel], 'strength': strength}

    def align(source, target, key):
        keys = jax.random.split(key)
        few = [_drawn(*one, k, examples) for one, k in zip((source, target), keys, strict=True)]
        return alignment.tca(*few, **options)

    return _aligned(config, spec, optimizer, align, KERNELS[kernel], probe, strengths, folds)


def _aligned(
    config,
    spec: Spec,
    optimizer,
    align: Align,
    kernel: Gaussians | None,
    probe: str,
    strengths: Sequence[float],
    folds: int,
) -> Method:
    """Training on the source, if there are steps, and the phase that aligns and fits.

    Until then predictions are those of the head; 'features' are the encoder's throughout.
    """
    check_streams(config)
    solver, grid = _linear(probe), tuple(strengths) or GRIDS[probe]
    check_choice(config, grid, folds)
    classifier, classes = Classifier.build(config, spec), len(spec.classes)

    def solved(source, target, labels, key):
        keys = jax.random.split(key, 3)
        unit = 1.0 / spread(*source)
        (x, v), (y, w) = source, target
        found = align((x * unit, v), (y * unit, w), keys[0])
        train = select.Examples(transform(found.source, x * unit, kernel), labels, v)
        held = select.folds(labels, v, keys[1], classes=classes, count=folds)
        options = {'key': keys[2]} if probe == 'minibatch_logistic' else {}
        choice = select.cross_validate(
            scaled(solver), grid, train, held, classes=classes, **options
        )
        return {
            'solved': jnp.ones((), bool),
            'unit': unit,
            'into': found.target._asdict(),
            'probe': choice.model._asdict(),
            'strength': choice.strength,
            'curve': choice.curve,
        }

    def init(key, spec):
        params, mutable = classifier.init(key, spec)
        shape = lambda *sides: jax.ShapeDtypeStruct(sides, jnp.float32)
        features, _ = jax.eval_shape(classifier.features, params, mutable, shape(1, *spec.image))
        counts = [spec.examples.get(name, 1) for name in ('source', 'target')]
        domains = [(shape(count, features.shape[1]), shape(count)) for count in counts]
        labels = jax.ShapeDtypeStruct(counts[:1], jnp.int32)
        made = jax.eval_shape(solved, *domains, labels, key)
        found = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), made)
        return params, {**mutable, FOUND: found}

    def fit(params, mutable, over, hp, key):
        del hp

        def look(batch):
            features, _ = classifier.features(params, mutable, batch['image'])
            label = {'label': batch['label']} if 'label' in batch else {}
            return {'of': (features, batch['valid'].astype(jnp.float32)), **label}

        source, target = over('source', look), over('target', look)
        found = solved(source['of'], target['of'], source['label'], key)
        return params, {**mutable, FOUND: found}

    def predict(params, mutable, inputs):
        out, _ = classifier(params, mutable, inputs)
        found = mutable[FOUND]
        into = (Components if kernel else Affine)(**found['into'])
        aligned = transform(into, out['features'] * found['unit'], kernel)
        logits = linear.logits(linear.Linear(**found['probe']), aligned)[0]
        return {**out, 'logits': jnp.where(found['solved'], logits, out['logits'])}

    def outcome(params, mutable):
        del params
        curve, strength = (mutable[FOUND][name] for name in ('curve', 'strength'))
        return {'strengths': jnp.asarray(grid), 'curve': curve, 'strength': strength}

    trained = supervised.build(config, spec, optimizer).phases if config.steps else ()
    return Method(init, (*trained, solve('align', fit)), predict, outcome)


def _linear(name: str) -> Probe:
    """The probe of that name, if it is a linear one."""
    solver = shallow.probe(name)
    if solver.logits is not linear.logits:
        known = [one for one, probe in PROBES.items() if probe.logits is linear.logits]
        raise ValueError(f'options.probe is {name!r}; expected a linear one: {", ".join(known)}')
    return solver


def _drawn(features: Array, weights: Array, key: Key, most: int) -> Array:
    """Up to so many different examples of positive weight; fewer are taken more than once."""
    order = jnp.argsort(jax.random.uniform(key, weights.shape) + (weights <= 0))
    place = jnp.arange(min(most, len(features))) % jnp.sum(weights > 0)
    return features[order[place]]
