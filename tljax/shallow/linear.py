"""What the linear probes share: the weights, their logits, and what input they refuse."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tljax.types import Array


class Linear(NamedTuple):
    """Linear classifiers of every regularisation strength; a seeds axis may come first."""

    kernel: Array  # [R, D, C] float32
    bias: Array  # [R, C] float32


def logits(model: Linear, features: Array) -> Array:
    """features @ kernel + bias of every strength.

    Args:
      model: of R strengths.
      features: [N, D] float.

    Returns:
      [R, N, C] float32.
    """
    x = features.astype(jnp.float32)
    product = jnp.einsum('nd,rdc->rnc', x, model.kernel, precision='highest')
    return product + model.bias[:, None, :]


def pick(model: Linear, index: Array) -> Linear:
    """The weights of one strength, by its place in the grid, as a grid of one."""
    return jax.tree.map(lambda leaf: leaf[index][None], model)


def traced(*arrays) -> bool:
    """Whether any of the arrays is abstract, so that its values cannot be checked."""
    return any(isinstance(one, jax.core.Tracer) for one in arrays)


def check_features(features: Array, name: str = 'features') -> None:
    """Refuses what is not a finite [N, D] array of floats; of a traced array, only the shape.

    Raises:
      ValueError: for another shape or type, no rows, or a value that is infinite or NaN.
    """
    if jnp.ndim(features) != 2 or 0 in jnp.shape(features):
        raise ValueError(f'{name} has shape {jnp.shape(features)}; expected [N, D], N and D over 0')
    if not jnp.issubdtype(features.dtype, jnp.floating):
        raise ValueError(f'{name} has type {features.dtype}; expected floats')
    if not traced(features):
        bad = np.flatnonzero(~np.asarray(jnp.isfinite(features).all(axis=1)))
        if bad.size:
            raise ValueError(f'{name} has values that are not finite in {bad.size} rows: {bad[:5]}')


def check_labels(labels: Array, count: int, classes: int, name: str = 'labels') -> None:
    """Refuses what is not [count] int in [0, classes), or fewer than two classes.

    Raises:
      ValueError: saying which of these it is.
    """
    if classes < 2:
        raise ValueError(f'{classes} classes; a classifier needs 2 or more')
    if jnp.shape(labels) != (count,) or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f'{name} has shape {jnp.shape(labels)} and type {labels.dtype}; '
            f'expected [{count}] int, one for each row of the features'
        )
    if traced(labels):
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(f'{name} span {low} to {high}; expected 0 to {classes - 1}')


def check_weights(weights: Array | None, labels: Array, classes: int) -> None:
    """Refuses weights that are not [..., N] and 0 or more, or that leave a class without example.

    Raises:
      ValueError: naming the classes that no example of positive weight has.
    """
    count = labels.shape[0]
    if weights is not None and jnp.shape(weights)[-1:] != (count,):
        raise ValueError(
            f'weights have shape {jnp.shape(weights)}; expected [{count}] or [S, {count}]'
        )
    if traced(labels) or (weights is not None and traced(weights)):
        return
    rows = np.ones((1, count)) if weights is None else np.asarray(weights, np.float64)
    for seed, row in enumerate(rows.reshape(-1, count)):
        if not (np.isfinite(row) & (row >= 0)).all():
            raise ValueError('weights must be finite and 0 or more')
        found = np.bincount(np.asarray(labels)[row > 0], minlength=classes)
        empty = np.flatnonzero(found == 0)
        if empty.size:
            which = f' of seed {seed}' if len(rows.reshape(-1, count)) > 1 else ''
            raise ValueError(
                f'{empty.size} of {classes} classes{which} have no example of positive weight: '
                f'{empty[:10].tolist()}'
            )


def check_strengths(strengths: Array) -> None:
    """Refuses what is not a [R] array of numbers over 0.

    Raises:
      ValueError: for another shape, or a strength that is 0, negative or not finite.
    """
    if jnp.ndim(strengths) != 1 or jnp.shape(strengths)[0] == 0:
        raise ValueError(f'strengths have shape {jnp.shape(strengths)}; expected [R], R over 0')
    if not traced(strengths):
        values = np.asarray(strengths, np.float64)
        if not (np.isfinite(values) & (values > 0)).all():
            raise ValueError(f'strengths must be finite and over 0; got {values.tolist()}')


def check(features, labels, strengths, weights, *, classes: int, **options) -> None:
    """All of the above: what every probe's `fit` refuses. Values of traced arrays pass unseen.

    Weights may be [N] or those of seeds, [S, N]. Other options of a fit have nothing to check.

    Raises:
      ValueError: saying what is wrong with which argument.
    """
    del options
    check_features(features)
    check_labels(labels, features.shape[0], classes)
    check_weights(weights, labels, classes)
    check_strengths(strengths)


def prepare(features, labels, strengths, weights, classes: int):
    """The checked arguments of a fit as arrays of fixed types; no weights are weights of one.

    Raises:
      ValueError: as `check`.
    """
    features, labels, strengths = jnp.asarray(features), jnp.asarray(labels), jnp.asarray(strengths)
    check(features, labels, strengths, weights, classes=classes)
    weights = jnp.ones(labels.shape) if weights is None else jnp.asarray(weights)
    if weights.ndim != 1:
        raise ValueError(f'weights have shape {weights.shape}; a fit takes [N]: vmap it over seeds')
    f32 = jnp.float32
    return features.astype(f32), labels, strengths.astype(f32), weights.astype(f32)
