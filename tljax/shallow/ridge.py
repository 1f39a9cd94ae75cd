"""Ridge regression to the classes: every strength from one decomposition."""

from functools import partial

import jax
import jax.numpy as jnp

from tljax.shallow.linear import Linear, prepare
from tljax.types import Array


def fit(
    features: Array,
    labels: Array,
    strengths: Array,
    weights: Array | None = None,
    *,
    classes: int,
    refine: int = 2,
) -> Linear:
    """Ridge regression to targets +1 for the label and -1 for the other classes.

    For each strength lambda the minimum over W [D, C] and b [C] of

        sum_i w_i ||W^T x_i + b - y_i||^2 + lambda ||W||^2

    which is scikit-learn's `RidgeClassifier(alpha=lambda)` with `sample_weight=w`: the intercept
    is not penalised. With X and Y centred by their weighted means and scaled by sqrt(w),

        W = (X^T X + lambda I)^-1 X^T Y = X^T (X X^T + lambda I)^-1 Y

    (Hastie et al. 2009, The Elements of Statistical Learning, 3.44 and section 18.3.5), from one
    eigendecomposition of the smaller of X^T X and X X^T for all strengths. Runs under `vmap` over
    `weights`, so that few-shot subsets and seeds share one program.

    Args:
      features: [N, D] float.
      labels: [N] int in [0, classes).
      strengths: [R] lambda, over 0.
      weights: [N] of 0 or more: 0 leaves an example out. None weighs all of them 1.
      classes: C.
      refine: steps of iterative refinement. The decomposition is of a squared matrix, which in
        float32 loses directions 3e-4 as long as the longest; each step wins back digits.

    Raises:
      ValueError: for fewer than two classes, labels out of range, a class without example,
        features that are not finite, strengths not over 0, or shapes that do not fit.
    """
    return _fit(*prepare(features, labels, strengths, weights, classes), classes, refine)


@partial(jax.jit, static_argnums=(4, 5))
def _fit(x, labels, strengths, weights, classes, refine):
    with jax.default_matmul_precision('highest'):
        y = 2.0 * jax.nn.one_hot(labels, classes) - 1.0
        share = weights / weights.sum()
        x_mean, y_mean = share @ x, share @ y
        root = jnp.sqrt(weights)[:, None]
        x, y = root * (x - x_mean), root * (y - y_mean)
        kernel = _solve(x, y, strengths, refine)
        return Linear(kernel, y_mean - x_mean @ kernel)


def _solve(x: Array, y: Array, strengths: Array, refine: int) -> Array:
    """(X^T X + lambda I)^-1 X^T Y, [R, D, C], from the smaller of the two squares of X."""
    primal = x.shape[1] <= x.shape[0]
    values, axes = jnp.linalg.eigh(x.T @ x if primal else x @ x.T)
    values = jnp.maximum(values, 0.0)  # rounding leaves some just below 0

    def residual(found, strength):
        if primal:
            return x.T @ (y - x @ found) - strength * found
        return y - x @ (x.T @ found) - strength * found

    start = axes.T @ (x.T @ y if primal else y)

    def one(strength):
        scale = 1.0 / (values + strength)[:, None]
        found = axes @ (scale * start)
        for _ in range(refine):
            found = found + axes @ (scale * (axes.T @ residual(found, strength)))
        return found if primal else x.T @ found

    return jax.lax.map(one, strengths)
