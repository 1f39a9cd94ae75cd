"""Regularisation chosen on held-out examples: one compiled program over all strengths."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tljax.shallow import Probe
from tljax.shallow.linear import check_features, check_labels
from tljax.types import Array, Key


class Examples(NamedTuple):
    """Features and labels, and the weights of every seed, 0 where it leaves an example out."""

    features: Array  # [N, D] float
    labels: Array  # [N] int
    weights: Array | None = None  # [S, N], or [N] and None for all seeds alike


class Choice(NamedTuple):
    """What was chosen, for each of S seeds."""

    strength: Array  # [S]
    index: Array  # [S] its place in the grid
    curve: Array  # [S, R] accuracy on the validation split of every strength
    model: Any  # the probe's, leaves [S, 1, ...]: for `logits` under vmap


def choose(
    probe: Probe,
    grid: Array,
    train: Examples,
    validation: Examples,
    *,
    classes: int,
    refit: bool = False,
    at_once: int = 1,
    **options,
) -> Choice:
    """Fits every strength for every seed and keeps the most accurate on the validation split.

    Of equally accurate strengths the largest is kept: the most regularised one, or the most
    neighbours. Everything is one compiled program, made anew only for other shapes or options.

    Args:
      probe: one of `tljax.shallow.PROBES`.
      grid: [R] strengths, over 0.
      train: N examples; `weights` [S, N] make S seeds.
      validation: M examples; may have `weights` [S, M] too.
      classes: C.
      refit: fit the chosen strength again on both splits.
      at_once: seeds solved side by side: 1 suits a CPU, and all of them an accelerator.
      options: more keywords of `fit`; hashable.

    Raises:
      ValueError: as the probe's `fit`; or for a validation split of other width, of labels out of
        range, without any weight, or of another number of seeds; or `at_once` under 1.
    """
    grid = jnp.asarray(grid, jnp.float32)
    train, validation = (Examples(*(_array(leaf) for leaf in one)) for one in (train, validation))
    seeds = _check(grid, train, validation, classes, probe, options)
    if at_once < 1:
        raise ValueError(f'at_once is {at_once}; expected 1 or more')
    train, validation = (_of_seeds(one, seeds) for one in (train, validation))
    settings = (classes, refit, min(at_once, seeds), tuple(sorted(options.items())))
    return _choose(probe, settings, grid, train, validation)


def _array(leaf):
    return None if leaf is None else jnp.asarray(leaf)


def _check(grid, train: Examples, validation: Examples, classes, probe: Probe, options) -> int:
    """The number of seeds, once everything is right."""
    probe.check(train.features, train.labels, grid, train.weights, classes=classes, **options)
    check_features(validation.features, 'validation features')
    count, width = validation.features.shape
    if width != train.features.shape[1]:
        raise ValueError(
            f'validation features have width {width}; expected {train.features.shape[1]}'
        )
    check_labels(validation.labels, count, classes, 'validation labels')
    held = validation.weights
    if held is not None and (held.shape[-1:] != (count,) or not (held.sum(axis=-1) > 0).all()):
        raise ValueError(
            f'validation weights have shape {held.shape}; expected [{count}] or [S, {count}], '
            'and one example or more of positive weight for each seed'
        )
    weighted = [one.weights for one in (train, validation) if one.weights is not None]
    seeds = {weights.shape[0] for weights in weighted if weights.ndim == 2}
    if len(seeds) > 1:
        raise ValueError(f'train and validation weights are of different numbers of seeds: {seeds}')
    return max(seeds, default=1)


def _of_seeds(one: Examples, seeds: int) -> Examples:
    weights = jnp.ones(one.labels.shape) if one.weights is None else one.weights
    shape = (seeds, one.labels.shape[0])
    return one._replace(weights=jnp.broadcast_to(weights, shape).astype(jnp.float32))


@partial(jax.jit, static_argnums=(0, 1))
def _choose(probe: Probe, settings, grid, train: Examples, validation: Examples) -> Choice:
    classes, refit, at_once, options = settings
    solve = partial(probe.fit, classes=classes, **dict(options))
    both = jnp.concatenate([train.features, validation.features])
    labels = jnp.concatenate([train.labels, validation.labels])

    def one(weights):
        fitted, held = weights
        model = solve(train.features, train.labels, grid, fitted)
        right = jnp.argmax(probe.logits(model, validation.features), axis=-1) == validation.labels
        curve = right.astype(jnp.float32) @ held / held.sum()
        index = _best(curve, grid)
        model = probe.pick(model, index)
        if refit:
            model = solve(both, labels, grid[index][None], jnp.concatenate(weights))
        return Choice(grid[index], index, curve, model)

    # A batch of one would still trace every branch of the line search as a select of both sides.
    size = at_once if at_once > 1 else None
    return jax.lax.map(one, (train.weights, validation.weights), batch_size=size)


def _best(curve: Array, grid: Array) -> Array:
    """Where the curve is highest; of equally high places that of the largest strength."""
    return jnp.argmax(jnp.where(curve == curve.max(), grid, -jnp.inf))


def folds(labels: Array, weights: Array, key: Key, *, classes: int, count: int) -> Array:
    """Each fold's held-out examples, drawn so that folds are alike in classes: [count, N] bool.

    Every example of positive weight is held out by one fold, but for one that is the only one of
    its class: no fold leaves a class without an example to fit.

    Args:
      labels: [N] int in [0, classes).
      weights: [N]; examples of weight 0 are never held out.
      key: of the draw.
      classes: C.
      count: how many folds, 2 or more.
    """
    group = jnp.where(weights > 0, labels, classes)
    order = jnp.lexsort((jax.random.uniform(key, labels.shape), group))
    sizes = jnp.bincount(group, length=classes + 1)
    begins = jnp.cumsum(sizes) - sizes
    place = jnp.arange(labels.shape[0]) - begins[group[order]]
    rank = jnp.zeros_like(place).at[order].set(place)
    # Classes begin at different folds, so that folds are alike in size too.
    fold = jnp.where((group < classes) & (sizes[group] > 1), (rank + group) % count, -1)
    return fold == jnp.arange(count)[:, None]


def cross_validate(
    probe: Probe, grid: Array, train: Examples, held: Array, *, classes: int, **options
) -> Choice:
    """Fits every strength without each fold, and the one that held-out examples choose with all.

    The curve is the share, by weight, of held-out examples that are classified right. Of equally
    accurate strengths the largest is kept, and so it is where nothing is held out. Values are not
    checked: this is for compiled programs.

    Args:
      probe: one of `tljax.shallow.PROBES`.
      grid: [R] strengths, over 0.
      train: N examples of one seed, with weights [N].
      held: [F, N] bool, see `folds`.
      classes: C.
      options: more keywords of `fit`.

    Returns:
      the choice of this one seed: strength [], index [], curve [R], model of that one strength.
    """

    def run(grid, train, held):
        solve = partial(probe.fit, train.features, train.labels, classes=classes, **options)

        def one(out):
            model = solve(grid, jnp.where(out, 0.0, train.weights))
            right = jnp.argmax(probe.logits(model, train.features), axis=-1) == train.labels
            share = jnp.where(out, train.weights, 0.0)
            return right.astype(jnp.float32) @ share, share.sum()

        right, total = (found.sum(axis=0) for found in jax.lax.map(one, held))
        curve = right / total
        index = _best(jnp.where(total > 0, curve, 0.0), grid)
        return Choice(grid[index], index, curve, solve(grid[index][None], train.weights))

    # Compiled here where nobody around it does: what is traced is not looked at.
    return jax.jit(run)(jnp.asarray(grid, jnp.float32), train, held)
