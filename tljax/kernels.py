"""Covariances, distances, similarities and kernels of samples, for losses and closed forms."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tljax.types import Array, Scalar, unknown

BANDWIDTHS = ('mean', 'median')
SIMILARITIES = ('dot', 'cosine', 'squared')
LEAST = 1e-20  # of what squared distances are divided by: 0 / LEAST is 0, with any factor


class Gaussians(NamedTuple):
    """The sum of K Gaussian kernels k(x, y) = sum_u exp(-||x - y||^2 / (b f^(u - K // 2))).

    With `bandwidth` 'mean' or 'median', b is that of the squared distances of all pairs of
    different examples, those of two domains together. The median is the heuristic of Gretton et
    al. 2012, section 8; the mean and the sum over five octaves are what DAN's authors run.

    Attributes:
      bandwidth: b; 'mean', 'median' or a number over 0.
      count: K.
      factor: f, over 0.
    """

    bandwidth: str | float = 'mean'
    count: int = 5
    factor: float = 2.0


def check_kernel(kernel: Gaussians) -> None:
    """Refuses a kernel that cannot be.

    Raises:
      ValueError: naming the field.
    """
    width = kernel.bandwidth
    if isinstance(width, str) and width not in BANDWIDTHS:
        raise unknown('bandwidth', width, (*BANDWIDTHS, 'a number'))
    if not isinstance(width, str) and not width > 0:
        raise ValueError(f'bandwidth is {width}; expected a number over 0, or one of {BANDWIDTHS}')
    if kernel.count < 1 or not kernel.factor > 0:
        raise ValueError(
            f'a sum of {kernel.count} kernels at factor {kernel.factor}; expected one kernel or '
            'more and a factor over 0'
        )


def covariance(x: Array, weights: Array | None = None) -> Array:
    """sum_i w_i (x_i - mean) (x_i - mean)^T / (sum_i w_i - 1), [D, D], of examples [N, D].

    Weights [N] are 0 for examples that are left out, else 1; None is 1 for all.
    """
    weights = jnp.ones(len(x)) if weights is None else weights
    total = weights.sum()
    x = x - weights @ x / total
    return jnp.matmul(x.T * weights, x, precision='highest') / (total - 1)


def squared_distances(x: Array, y: Array) -> Array:
    """||x_i - y_j||^2 [N, M] of rows [N, D] and [M, D], by one matrix product.

    Both are first moved by the mean of y, so that an offset common to all costs no digits.
    """
    centre = jax.lax.stop_gradient(y.mean(axis=0))
    x, y = x - centre, y - centre
    product = jnp.matmul(x, y.T, precision='highest')
    squares = jnp.sum(x * x, axis=1)[:, None] + jnp.sum(y * y, axis=1)
    return jnp.maximum(squares - 2.0 * product, 0.0)


def chi_squared_distances(x: Array, y: Array, block: int = 64) -> Array:
    """sum_d (x_id - y_jd)^2 / (x_id + y_jd) [N, M] of histograms [N, D] and [M, D]; 0 / 0 is 0.

    Rows of x are taken `block` by `block`, each against all of y.
    """

    def one(row):
        total = row + y
        return jnp.sum(
            jnp.where(total > 0, (row - y) ** 2 / jnp.maximum(total, LEAST), 0.0), axis=1
        )

    return jax.lax.map(one, x, batch_size=min(block, len(x)))


def bandwidth(kernel: Gaussians, x: Array) -> Scalar:
    """b of a kernel for examples [N, D], of both domains if there are two; has no gradient.

    The mean needs no pairs: it is 2 / (N - 1) sum_i ||x_i - mean||^2. Never 0, so that a kernel of
    examples that are all equal is K everywhere.
    """
    if kernel.bandwidth == 'mean':
        width = 2.0 * jnp.sum((x - x.mean(axis=0)) ** 2) / (len(x) - 1)
    elif kernel.bandwidth == 'median':
        width = jnp.median(squared_distances(x, x)[jnp.triu_indices(len(x), 1)])
    else:
        width = jnp.float32(kernel.bandwidth)
    return jax.lax.stop_gradient(jnp.maximum(width, LEAST))


def gaussians(kernel: Gaussians, squared: Array, width: Scalar) -> Array:
    """k of squared distances [...] with b = `width`: [...] in [0, K]."""
    steps = [kernel.factor ** (u - kernel.count // 2) for u in range(kernel.count)]
    return sum(jnp.exp(-squared / (width * step)) for step in steps)


def compatibility(found: Array, wanted: Array, similarity: str) -> Array:
    """F of vectors x [N, K] with those of classes s [C, K], higher for nearer: [N, C].

    <x, s> ('dot'), <x, s> / (||x|| ||s||) ('cosine'), or -||x - s||^2 ('squared').
    """
    if similarity == 'squared':
        return -squared_distances(found, wanted)
    if similarity == 'cosine':
        found, wanted = unit_length(found), unit_length(wanted)
    elif similarity != 'dot':
        raise unknown('similarity', similarity, SIMILARITIES)
    return found @ wanted.T


def unit_length(x: Array) -> Array:
    """Rows of length 1; a row of zeros stays, with finite gradients."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-12))
