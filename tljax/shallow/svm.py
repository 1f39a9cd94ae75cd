"""Linear support vector machines, one against the rest, with the squared hinge."""

from functools import partial

import jax
import jax.numpy as jnp

from tljax.shallow import descent
from tljax.shallow.linear import Linear, prepare
from tljax.types import Array


def fit(
    features: Array,
    labels: Array,
    strengths: Array,
    weights: Array | None = None,
    *,
    classes: int,
    intercept_scaling: float = 1.0,
    tolerance: float = 1e-6,
    steps: int = 300,
) -> Linear:
    """For each strength lambda and class c the minimum over W_c [D] and b_c of

        sum_i w_i max(0, 1 - t_ic (W_c . x_i + b_c))^2 + lambda/2 (||W_c||^2 + (b_c / s)^2)

    with t_ic = +1 if y_i = c, else -1: Fan et al. 2008, LIBLINEAR, equation 1 with the L2 loss.
    This is scikit-learn's `LinearSVC(C=1 / lambda, intercept_scaling=s)` with `sample_weight=w`:
    the intercept is the weight of a constant feature s and is penalised with the others; a large s
    frees it. Of two classes the second column is scikit-learn's one vector, the first its negative.

    Args:
      features: [N, D] float.
      labels: [N] int in [0, classes).
      strengths: [R] lambda, over 0.
      weights: [N] of 0 or more: 0 leaves an example out. None weighs all of them 1.
      classes: C.
      intercept_scaling: s, over 0.
      tolerance: stops at a squared (preconditioned) gradient below this share of the objective.
      steps: at most so many of L-BFGS for each strength.

    Raises:
      ValueError: for fewer than two classes, labels out of range, a class without example,
        features that are not finite, strengths not over 0, or shapes that do not fit.
    """
    arguments = prepare(features, labels, strengths, weights, classes)
    return _fit(*arguments, intercept_scaling, tolerance, steps, classes)


@partial(jax.jit, static_argnums=7)
def _fit(x, labels, strengths, weights, intercept_scaling, tolerance, steps, classes):
    sign = 2.0 * jax.nn.one_hot(labels, classes) - 1.0

    def loss(logits, bias, strength):
        hinge = jnp.maximum(0.0, 1.0 - sign * logits)
        penalty = 0.5 * strength * jnp.sum((bias / intercept_scaling) ** 2)
        return jnp.sum(weights[:, None] * hinge**2) + penalty

    def curvature(logits):  # 2 where the hinge is not 0, as if it were never 0 for all
        active = jnp.mean(sign * logits < 1.0, axis=-1)
        return 2.0 * jnp.sum(weights * jnp.maximum(active, 1e-4))

    with jax.default_matmul_precision('highest'):
        where = descent.basis(x)
        return descent.path(where, loss, curvature, strengths, classes, tolerance, steps)
