"""Multinomial logistic regression by minibatches, for feature arrays of any length."""

from functools import partial

import jax
import jax.numpy as jnp
import optax

from tljax.shallow.linear import Linear, prepare
from tljax.types import Array, Key


def fit(
    features: Array,
    labels: Array,
    strengths: Array,
    weights: Array | None = None,
    *,
    classes: int,
    key: Key | int = 0,
    batch: int = 256,
    steps: int = 2000,
    rate: float = 0.01,
) -> Linear:
    """`logistic.fit`'s objective by Adam on batches drawn with replacement; approximate.

    Kingma and Ba 2015, algorithm 1, on features divided by their standard deviation, with a rate
    that falls along a half cosine; the penalty stays on the weights of the undivided features. A
    step costs batch * D * C of each strength, whatever N is.

    Args:
      features: [N, D] float.
      labels: [N] int in [0, classes).
      strengths: [R] lambda, over 0; all strengths see the same batches.
      weights: [N] of 0 or more: examples are drawn in proportion. None draws all alike.
      classes: C.
      key: what the draws come from: a key, or the seed of one.
      batch: examples a step.
      steps: how many.
      rate: of Adam, at the start.

    Raises:
      ValueError: as `logistic.fit`, or for a batch or number of steps under 1.
    """
    if min(batch, steps) < 1:
        raise ValueError(f'batch is {batch} and steps {steps}; expected 1 or more of each')
    arguments = prepare(features, labels, strengths, weights, classes)
    key = jax.random.key(key) if isinstance(key, int) else key
    return _fit(*arguments, key, rate, classes, batch, steps)


@partial(jax.jit, static_argnums=(6, 7, 8))
def _fit(x, labels, strengths, weights, key, rate, classes, batch, steps):
    total, share = weights.sum(), jnp.cumsum(weights)
    mean = weights @ x / total
    scale = 1.0 / jnp.maximum(jnp.sqrt(weights @ (x - mean) ** 2 / total), 1e-6)[:, None]
    solver = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def loss(point, strength, rows, target):
        kernel, bias = point
        logits = rows @ (scale * kernel) + bias
        each = optax.softmax_cross_entropy_with_integer_labels(logits, target)
        return each.mean() + 0.5 * strength / total * jnp.sum((scale * kernel) ** 2)

    def step(count, carry):
        at = jax.random.uniform(jax.random.fold_in(key, count), (batch,)) * share[-1]
        index = jnp.minimum(jnp.searchsorted(share, at, side='right'), share.size - 1)
        rows, target = x[index] - mean, labels[index]

        def one(point, state, strength):
            update, state = solver.update(jax.grad(loss)(point, strength, rows, target), state)
            return optax.apply_updates(point, update), state

        return jax.vmap(one)(*carry, strengths)

    shape = (strengths.size, x.shape[1], classes)
    start = jnp.zeros(shape), jnp.zeros((strengths.size, classes))
    kernel, bias = jax.lax.fori_loop(0, steps, step, (start, jax.vmap(solver.init)(start)))[0]
    kernel = scale * kernel
    return Linear(kernel, bias - mean @ kernel)
