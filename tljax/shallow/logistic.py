"""Multinomial logistic regression: a path over all strengths, by L-BFGS."""

from functools import partial

import jax
import jax.numpy as jnp
import optax

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
    tolerance: float = 1e-5,
    steps: int = 300,
) -> Linear:
    """For each strength lambda the minimum over W [D, C] and b [C] of

        sum_i w_i (-log softmax(W^T x_i + b)_{y_i}) + lambda/2 ||W||^2

    (Bishop 2006, Pattern Recognition and Machine Learning, equations 4.104 and 4.108, and a
    penalty). The intercept is not penalised. For C > 2 this is scikit-learn's
    `LogisticRegression(C=1 / lambda)` with `sample_weight=w`. Of two classes scikit-learn fits the
    one vector W_1 - W_0, whose penalty is half as large: there `C=2 / lambda` is the same.

    One decomposition of the features serves all strengths and weights as the preconditioner, and
    each strength starts from where the stronger ones lead: one program, also under `vmap` over
    `weights`.

    Args:
      features: [N, D] float.
      labels: [N] int in [0, classes).
      strengths: [R] lambda, over 0.
      weights: [N] of 0 or more: 0 leaves an example out. None weighs all of them 1.
      classes: C.
      tolerance: stops at a squared (preconditioned) gradient below this share of the objective.
      steps: at most so many of L-BFGS for each strength.

    Raises:
      ValueError: for fewer than two classes, labels out of range, a class without example,
        features that are not finite, strengths not over 0, or shapes that do not fit.
    """
    return _fit(*prepare(features, labels, strengths, weights, classes), tolerance, steps, classes)


@partial(jax.jit, static_argnums=6)
def _fit(x, labels, strengths, weights, tolerance, steps, classes):
    def loss(logits, bias, strength):
        del bias, strength  # neither is part of what is summed over examples
        each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.sum(jnp.where(weights > 0, weights * each, 0.0))

    def curvature(logits):  # p (1 - p), not 0 where every example is told for certain
        unsure = 1.0 - jnp.sum(jax.nn.softmax(logits) ** 2, axis=-1)
        return jnp.sum(weights * jnp.maximum(unsure, 1e-4)) / classes

    with jax.default_matmul_precision('highest'):
        where = descent.basis(x)
        return descent.path(where, loss, curvature, strengths, classes, tolerance, steps)
