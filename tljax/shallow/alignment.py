"""Closed forms that bring the features of two domains together: CORAL, subspaces, TCA.

Each is `fit(source, target, ...) -> Alignment` without labels. A classifier is then fitted to
`transform(found.source, ...)` of the source and asked about `transform(found.target, ...)`.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tljax.kernels import (
    Gaussians,
    bandwidth,
    check_kernel,
    covariance,
    gaussians,
    squared_distances,
)
from tljax.shallow.linear import check_features
from tljax.types import Array


class Affine(NamedTuple):
    """x -> (x - mean) @ kernel + bias."""

    mean: Array  # [D]
    kernel: Array  # [D, K]
    bias: Array  # [K]


class Components(NamedTuple):
    """x -> k(x, examples) @ kernel, for the Gaussian kernels k of width `width`."""

    examples: Array  # [E, D]
    kernel: Array  # [E, K]
    width: Array  # []


class Alignment(NamedTuple):
    """The maps of both domains into one space."""

    source: Affine | Components
    target: Affine | Components


def transform(into: Affine | Components, features: Array, kernel: Gaussians | None = None) -> Array:
    """Features [N, D] in the common space, [N, K] float32; `kernel` is that of the `Components`."""
    x = features.astype(jnp.float32)
    if isinstance(into, Affine):
        return jnp.matmul(x - into.mean, into.kernel, precision='highest') + into.bias
    k = gaussians(kernel, squared_distances(x, into.examples), into.width)
    return jnp.matmul(k, into.kernel, precision='highest')


def coral(
    source: Array,
    target: Array,
    source_weights: Array | None = None,
    target_weights: Array | None = None,
    *,
    strength: float = 1.0,
) -> Alignment:
    """Whitens the source and colours it as the target, whose features stay as they are:

    x -> (x - m_s) C_s^(-1/2) C_t^(1/2) + m_t,  C = covariance + strength I

    Sun, Feng and Saenko 2016, "Return of frustratingly easy domain adaptation", arXiv:1511.05547,
    Algorithm 1, where strength is 1 and features have mean 0 and variance 1 in each domain.

    Args:
      source: [N, D] float.
      target: [M, D] float.
      source_weights: [N] 0 for an example that is left out, else 1; None: 1 for all.
      target_weights: [M] the same.
      strength: over 0.

    Raises:
      ValueError: features that are not finite or differ in width, or a strength not over 0.
    """
    if not strength > 0:
        raise ValueError(f'strength is {strength}; expected it to be over 0')
    return _coral(*_prepared(source, target, source_weights, target_weights), strength)


@jax.jit
def _coral(x, y, v, w, strength):
    with jax.default_matmul_precision('highest'):
        eye = jnp.eye(x.shape[1])
        whiten = _power(covariance(x, v) + strength * eye, -0.5)
        colour = _power(covariance(y, w) + strength * eye, 0.5)
        means = v @ x / v.sum(), w @ y / w.sum()
        zero = jnp.zeros_like(means[0])
        return Alignment(Affine(means[0], whiten @ colour, means[1]), Affine(zero, eye, zero))


def subspaces(
    source: Array,
    target: Array,
    source_weights: Array | None = None,
    target_weights: Array | None = None,
    *,
    dimensions: int,
) -> Alignment:
    """Principal components of each domain, those of the source turned into those of the target:

    source: x -> (x - m_s) P_s P_s^T P_t;  target: y -> (y - m_t) P_t

    with the first principal directions P [D, K] of each.

    Fernando et al. 2013, "Unsupervised visual domain adaptation using subspace alignment",
    ICCV 2013, Algorithm 1.

    Args:
      source: [N, D] float.
      target: [M, D] float.
      source_weights: [N] 0 for an example that is left out, else 1; None: 1 for all.
      target_weights: [M] the same.
      dimensions: K, at most D.

    Raises:
      ValueError: features that are not finite or differ in width, or more dimensions than they
        have.
    """
    arrays = _prepared(source, target, source_weights, target_weights)
    _check_dimensions(dimensions, arrays[0].shape[1], 'features have')
    return _subspaces(*arrays, dimensions)


@partial(jax.jit, static_argnums=4)
def _subspaces(x, y, v, w, dimensions):
    with jax.default_matmul_precision('highest'):
        first = lambda z, u: jnp.linalg.eigh(covariance(z, u))[1][:, ::-1][:, :dimensions]
        ours, theirs = first(x, v), first(y, w)
        zero = jnp.zeros(dimensions)
        return Alignment(
            Affine(v @ x / v.sum(), ours @ (ours.T @ theirs), zero),
            Affine(w @ y / w.sum(), theirs, zero),
        )


def tca(
    source: Array,
    target: Array,
    *,
    dimensions: int,
    kernel: Gaussians | None = None,
    strength: float = 1.0,
) -> Alignment:
    """Transfer components: directions that keep variance and in which the domains' means agree.

    With the kernel matrix K of all N + M examples, e = 1/N on the source and -1/M on the target,
    L = e e^T and H = I - 1 1^T / (N + M), the columns of W are the leading eigenvectors of

        (K L K + strength I)^-1 K H K

    scaled so that W^T K H K W = (N + M) I: components of variance 1 over both domains together.
    A linear kernel gives an affine map; Gaussians keep the examples.

    Pan et al. 2011, "Domain adaptation via transfer component analysis", IEEE Transactions on
    Neural Networks 22(2), section III.

    Args:
      source: [N, D] float.
      target: [M, D] float.
      dimensions: at most N + M - 1, and for a linear kernel at most D.
      kernel: sum of Gaussians; None: linear, of features less their mean.
      strength: over 0; the paper's mu.

    Raises:
      ValueError: features that are not finite or differ in width, more dimensions than there can
        be, a kernel that cannot be, or a strength not over 0.
    """
    x, y, _, _ = _prepared(source, target)
    most = len(x) + len(y) - 1
    _check_dimensions(dimensions, most if kernel else min(most, x.shape[1]), 'these examples allow')
    if not strength > 0:
        raise ValueError(f'strength is {strength}; expected it to be over 0')
    if kernel is not None:
        check_kernel(kernel)
    return _tca(x, y, strength, dimensions, kernel)


@partial(jax.jit, static_argnums=(3, 4))
def _tca(x, y, strength, dimensions, kernel):
    with jax.default_matmul_precision('highest'):
        z = jnp.concatenate([x, y])
        e = jnp.concatenate([jnp.full(len(x), 1.0 / len(x)), jnp.full(len(y), -1.0 / len(y))])
        if kernel is None:
            mean = z.mean(axis=0)
            found = _components((z - mean) @ (z - mean).T, e, strength)[:, :dimensions]
            into = Affine(mean, (z - mean).T @ found, jnp.zeros(dimensions))
        else:
            width = bandwidth(kernel, z)
            k = gaussians(kernel, squared_distances(z, z), width)
            into = Components(z, _components(k, e, strength)[:, :dimensions], width)
        return Alignment(into, into)


def _components(k: Array, e: Array, strength: Array) -> Array:
    """W, all of it, the leading columns first."""
    # K L K = u u^T is of rank one, so (u u^T + strength I)^(-1/2) needs no decomposition.
    u = k @ e
    squared = jnp.maximum(u @ u, jnp.finfo(jnp.float32).tiny)
    less = (1.0 - jnp.sqrt(strength / (strength + squared))) / squared
    half = lambda m: (m - less * jnp.outer(u, u @ m)) / jnp.sqrt(strength)
    centred = k - k.mean(axis=0)  # H K
    values, vectors = jnp.linalg.eigh(half(half(centred.T @ centred).T))
    values, vectors = values[::-1], half(vectors[:, ::-1])
    least = values[0] * jnp.finfo(jnp.float32).eps
    return vectors * jnp.sqrt(len(k) / jnp.maximum(values, least))


def _power(matrix: Array, exponent: float) -> Array:
    """A power of a symmetric positive definite matrix."""
    values, vectors = jnp.linalg.eigh(matrix)
    return (vectors * values**exponent) @ vectors.T


def _prepared(source, target, source_weights=None, target_weights=None):
    """The checked arguments of a fit, in float32."""
    arrays, weights = [], []
    for name, x, w in (('source', source, source_weights), ('target', target, target_weights)):
        x = jnp.asarray(x)
        check_features(x, name)
        arrays.append(x.astype(jnp.float32))
        weights.append(jnp.ones(len(x)) if w is None else jnp.asarray(w, jnp.float32))
    if arrays[0].shape[1] != arrays[1].shape[1]:
        widths = [x.shape[1] for x in arrays]
        raise ValueError(f'source features have width {widths[0]}, those of the target {widths[1]}')
    return *arrays, *weights


def _check_dimensions(dimensions: int, most: int, who: str) -> None:
    if not 1 <= dimensions <= most:
        raise ValueError(f'dimensions is {dimensions}; expected 1 to {most}, which is what {who}')
