"""L-BFGS along the eigenvectors of the features: the solver of the logistic probe and the SVM."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from tljax.shallow.linear import Linear
from tljax.types import Array, Arrays, Scalar


class Basis(NamedTuple):
    """Features along the eigenvectors of their covariance: rows = (features - mean) @ axes."""

    mean: Array  # [D]
    axes: Array  # [D, K], K = min(N, D); orthonormal columns
    values: Array  # [K] variance along each axis
    rows: Array  # [N, K]


def basis(features: Array, centred: bool = True) -> Basis:
    """The eigenvectors of the smaller of the covariance and the Gram matrix of [N, D] features.

    A penalty on the length of the weights is the same in any such basis, and weights outside the
    span of the examples are 0 at its minimum, so nothing is lost; what is won is fewer columns if
    N < D, and the curvature along each of them. All examples count, whatever their weight: then
    one basis serves every subset. Not `centred`, the mean is taken to be 0.
    """
    count, width = features.shape
    mean = features.mean(axis=0) if centred else jnp.zeros(width)
    x = features - mean
    if width <= count:
        values, axes = jnp.linalg.eigh(x.T @ x / count)
    else:
        across, along = jnp.linalg.qr(x.T)
        values, inner = jnp.linalg.eigh(along @ along.T / count)
        axes = across @ inner
    return Basis(mean, axes, jnp.maximum(values, 0.0), x @ axes)


def minimise(objective: Callable[[Arrays], Scalar], start: Arrays, tolerance, steps: int) -> Arrays:
    """L-BFGS with a zoom line search, until the gradient is short or nothing is gained.

    Liu and Nocedal 1989, algorithm 2.1; the line search is Nocedal and Wright 2006, algorithms 3.5
    and 3.6. Stops once ||gradient||^2 <= tolerance * |objective|: where the curvature is near 1,
    as in `path`, half of that squared length is what is left to gain.
    """
    solver = optax.lbfgs(memory_size=10)

    def step(carry):
        count, x, state, value, gradient, _ = carry
        update, state = solver.update(
            gradient, state, x, value=value, grad=gradient, value_fn=objective
        )
        # The line search has evaluated the new point already; asking again would double the work.
        after, slope = optax.tree.get(state, 'value'), optax.tree.get(state, 'grad')
        stuck = jnp.logical_not(after < value)
        x = jax.tree.map(lambda old, new: jnp.where(stuck, old, old + new), x, update)
        return count + 1, x, state, after, slope, stuck

    def unfinished(carry):
        count, _, _, value, gradient, stuck = carry
        long = optax.tree.norm(gradient, squared=True) > tolerance * jnp.abs(value)
        return (count < steps) & long & jnp.logical_not(stuck)

    value, gradient = jax.value_and_grad(objective)(start)
    first = (0, start, solver.init(start), value, gradient, jnp.array(False))
    return jax.lax.while_loop(unfinished, step, first)[1]


def path(
    where: Basis,
    loss: Callable[[Array, Array, Scalar], Scalar],
    curvature: Callable[[Array], Scalar],
    strengths: Array,
    classes: int,
    tolerance: float,
    steps: int,
) -> Linear:
    """Minimises loss(X W + b, b, lambda) + lambda/2 ||W||^2 for every lambda, the strongest first.

    Each strength starts where the two before it lead, on the line through their solutions over
    log lambda (a secant predictor: Allgower and Georg 1990, Numerical Continuation Methods), from
    where it takes a third of the steps. Axis k is divided by the square root of
    curvature * values[k] + lambda, which leaves a curvature near 1 in all directions.

    Args:
      where: the features' basis.
      loss: fn(logits [N, C], bias [C], lambda), the sum over examples.
      curvature: fn(logits [N, C]), the loss's in the logits, summed over examples and the mean of
        classes, over 0; a guess of its size suffices.
      strengths: [R] lambda.
      classes: C.
      tolerance: of `minimise`.
      steps: of `minimise`, for each strength.
    """
    shift = where.mean @ where.axes

    def one(carry, inputs):
        (last, before), (strength, reach) = carry, inputs
        start = jax.tree.map(lambda near, far: near + reach * (near - far), last, before)
        bend = curvature(where.rows @ start['kernel'] + start['bias'])
        scale, unit = 1.0 / jnp.sqrt(bend * where.values + strength)[:, None], jnp.sqrt(bend)

        def objective(point):
            weights, bias = scale * point['kernel'], point['bias'] / unit
            penalty = 0.5 * strength * jnp.sum(weights**2)
            logits = where.rows @ weights + bias
            return loss(logits, bias - shift @ weights, strength) + penalty

        start = {'kernel': start['kernel'] / scale, 'bias': start['bias'] * unit}
        found = minimise(objective, start, tolerance, steps)
        found = {'kernel': scale * found['kernel'], 'bias': found['bias'] / unit}
        return (found, last), found

    zero = {'kernel': jnp.zeros((where.rows.shape[1], classes)), 'bias': jnp.zeros(classes)}
    order = jnp.argsort(-strengths)
    inputs = strengths[order], _reaches(jnp.log(strengths[order]))
    found = jax.lax.scan(one, (zero, zero), inputs)[1]
    found = jax.tree.map(lambda leaf: leaf[jnp.argsort(order)], found)
    kernel = jnp.einsum('dk,rkc->rdc', where.axes, found['kernel'])
    return Linear(kernel, found['bias'] - where.mean @ kernel)


def _reaches(places: Array) -> Array:
    """Of falling places [R], each step in units of the one before; 1 at most, and 0 without one."""
    steps = -jnp.diff(places)
    ratio = jnp.where(steps[:-1] > 0, steps[1:] / steps[:-1], 0.0)
    return jnp.zeros_like(places).at[2:].set(jnp.minimum(ratio, 1.0))
