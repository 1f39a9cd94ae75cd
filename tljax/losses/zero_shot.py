"""Losses of zero-shot learning: rankings of classes by compatibility, and regression to them.

`scores` [N, C] are compatibilities F(x_n, c), `label` [N] the true classes y_n, and `among` [C]
bool the classes that take part: those seen. With the margin m, an example's violations are

    v_c = max(0, m + F(x_n, c) - F(x_n, y_n))  for c among them other than y_n, else 0
"""

import jax
import jax.numpy as jnp

from tljax.kernels import unit_length
from tljax.types import Array, Scalar


def violations(scores: Array, label: Array, among: Array, margin: float) -> Array:
    """v [N, C], as above."""
    own = jnp.take_along_axis(scores, label[:, None], axis=1)
    others = among & (jnp.arange(scores.shape[1]) != label[:, None])
    return jnp.where(others, jnp.maximum(margin + scores - own, 0.0), 0.0)


def devise(scores: Array, label: Array, among: Array, margin: float = 0.1) -> Scalar:
    """Mean over examples of sum_c v_c: Frome et al. 2013, "DeViSE", equation 1."""
    return violations(scores, label, among, margin).sum(axis=1).mean()


def ale(scores: Array, label: Array, among: Array, margin: float = 1.0) -> Scalar:
    """Mean over examples of beta(r) / r sum_c v_c, r = |{c: v_c > 0}|, beta(r) = sum_(i<=r) 1/i.

    Akata et al. 2016, "Label-embedding for image classification", arXiv:1503.08677, with
    the weights of Usunier et al. 2009: the more classes are in the way, the less each counts.
    """
    v = violations(scores, label, among, margin)
    rank = (v > 0).sum(axis=1)
    beta = jnp.concatenate([jnp.zeros(1), jnp.cumsum(1.0 / jnp.arange(1, scores.shape[1] + 1))])
    return (beta[rank] / jnp.maximum(rank, 1) * v.sum(axis=1)).mean()


def sje(scores: Array, label: Array, among: Array, margin: float = 1.0) -> Scalar:
    """Mean over examples of max_c v_c: Akata et al. 2015, "SJE", arXiv:1409.8403."""
    return violations(scores, label, among, margin).max(axis=1).mean()


def squared_error(found: Array, wanted: Array) -> Scalar:
    """Mean over examples of ||x_n - s_n||^2, of [N, K] and [N, K]."""
    return jnp.sum((found - wanted) ** 2, axis=1).mean()


def cosine_distance(found: Array, wanted: Array) -> Scalar:
    """Mean over examples of 1 - <x_n, s_n> / (||x_n|| ||s_n||), of [N, K] and [N, K]."""
    return 1.0 - jnp.sum(unit_length(found) * unit_length(wanted), axis=1).mean()


def attribute_cross_entropy(logits: Array, attributes: Array) -> Scalar:
    """Mean over examples and attributes of -a log p - (1 - a) log(1 - p), p = sigmoid(logits).

    Args:
      logits: [N, A].
      attributes: a [N, A] in {0, 1}.
    """
    return (jax.nn.softplus(logits) - attributes * logits).mean()
