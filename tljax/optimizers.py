"""Optimizers from config: schedules, layer-wise rates, decay masks, clipping, accumulation.

`build(config, steps)` returns `hp -> optax.GradientTransformation`, where `hp` holds the traced
scalars 'rate', 'momentum' and 'weight_decay', so that a sweep over them is one compiled program.
"""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from tljax import partition
from tljax.types import Hparams, PyTree, unknown

TOKENS = 'class_token', 'positions'  # of a ViT


def _constant(config, steps):
    del config, steps
    return optax.constant_schedule(1.0)


def _cosine(config, steps):
    return optax.cosine_decay_schedule(1.0, max(steps - config.warmup, 1))


def _step(config, steps):
    del steps
    bounds = {int(b) - config.warmup: config.factor for b in config.boundaries}
    return optax.piecewise_constant_schedule(1.0, bounds)


def _annealed(config, steps):
    """(1 + 10 p)^-0.75 with progress p in [0, 1]: Ganin et al. 2016, section 5.2.2."""
    length = max(steps - config.warmup, 1)
    return lambda count: (1.0 + 10.0 * jnp.minimum(count / length, 1.0)) ** -0.75


SCHEDULES: Mapping[str, Callable] = {
    'constant': _constant,
    'cosine': _cosine,
    'step': _step,
    'annealed': _annealed,
}


def _sgd(hp, decay):
    # As PyTorch: the decay is part of the gradient that the momentum accumulates.
    return decay, optax.trace(decay=hp['momentum'])


def _nesterov(hp, decay):
    return decay, optax.trace(decay=hp['momentum'], nesterov=True)


def _adam(hp, decay):
    return decay, optax.scale_by_adam(b1=hp['momentum'])


def _adamw(hp, decay):
    return optax.scale_by_adam(b1=hp['momentum']), decay


OPTIMIZERS: Mapping[str, Callable] = {
    'sgd': _sgd,
    'nesterov': _nesterov,
    'adam': _adam,
    'adamw': _adamw,
}


def _lookup(table: Mapping, name: str, kind: str):
    if name not in table:
        raise unknown(kind, name, table)
    return table[name]


def schedule(config, steps: int) -> optax.Schedule:
    """The rate's shape over `steps` updates, at most 1: linear warm-up, then the named decay."""
    main = _lookup(SCHEDULES, config.schedule, 'schedule')(config, steps)
    if not config.warmup:
        return main
    warm = optax.linear_schedule(0.0, 1.0, config.warmup)
    return optax.join_schedules([warm, main], [config.warmup])


# Roles that double another, and go by the patterns that name it: a config knows that one only.
DOUBLES = {'target_encoder': 'encoder', 'head2': 'head'}


def multiplier(path: str, rates: Mapping[str, float]) -> float:
    """The layer-wise factor of a parameter: the product of all patterns that name it.

    A product, since a config keeps no order of its keys. Of a role that doubles another (DOUBLES),
    what names the other counts, too.
    """
    role, slash, rest = path.partition('/')
    names = {path, DOUBLES.get(role, role) + slash + rest}
    return math.prod(
        float(factor)
        for pattern, factor in rates.items()
        if any(partition.matches(name, pattern) for name in names)
    )


def decayed(tree: PyTree) -> PyTree:
    """True for leaves that weight decay may shrink: matrices and kernels, not biases or norms.

    Nor a ViT's class token and positions (Touvron et al., 2021, arXiv:2012.12877, their code).
    """

    def shrinks(path, leaf) -> bool:
        return jnp.ndim(leaf) >= 2 and getattr(path[-1], 'key', '') not in TOKENS

    return jax.tree_util.tree_map_with_path(shrinks, tree)


def _layerwise(rates: Mapping[str, float]) -> optax.GradientTransformation:
    def scale(path, update):
        return update * multiplier('/'.join(str(key.key) for key in path), rates)

    return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scale, updates))


def _check(config) -> None:
    for name, low in (('accumulate', 1), ('clip', 0), ('warmup', 0), ('factor', 0)):
        if config[name] < low:
            raise ValueError(f'optimizer.{name} is {config[name]}; expected {low} or more')
    bounds = (config.warmup, *config.boundaries)
    if config.schedule == 'step' and not (len(bounds) > 1 and sorted({*bounds}) == [*bounds]):
        raise ValueError(
            f'optimizer.boundaries is {config.boundaries}; the step schedule expects one or more '
            f'updates, growing, after the warm-up of {config.warmup}'
        )


def build(config, steps: int, moves: int = 1) -> Callable[[Hparams], optax.GradientTransformation]:
    """`hp -> optax.GradientTransformation` of an optimizer config.

    In order: clipping of the player's own global norm, decay and preconditioner, layer-wise
    factors (`multiplier`), schedule times `hp['rate']`, accumulation over `config.accumulate`
    steps (the schedule then counts updates, not steps).

    Args:
      config: name, schedule, warmup, boundaries, factor, clip, accumulate, rates.
      steps: length of the phase, which the schedules stretch over.
      moves: of the player in a step, which all have one rate.

    Raises:
      ValueError: an unknown optimizer or schedule, or an impossible number.
    """
    rule = _lookup(OPTIMIZERS, config.name, 'optimizer')
    _check(config)
    shape = schedule(config, -(-steps // config.accumulate))

    def make(hp: Hparams) -> optax.GradientTransformation:
        decay = optax.add_decayed_weights(hp['weight_decay'], mask=decayed)
        parts = [optax.clip_by_global_norm(config.clip)] if config.clip else []
        parts += rule(hp, decay)
        if config.rates:
            parts.append(_layerwise(config.rates))
        parts.append(optax.scale_by_learning_rate(lambda count: hp['rate'] * shape(count // moves)))
        chain = optax.chain(*parts)
        if config.accumulate > 1:
            chain = optax.MultiSteps(chain, config.accumulate).gradient_transformation()
        return chain

    return make
