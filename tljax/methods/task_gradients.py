"""Gradients of several tasks: combined, carried back once, compared."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from tljax.losses.surgery import Solver, inner_products
from tljax.types import Array, Gradient, PyTree, Scalar

AFFINITIES = ('cosine', 'lookahead')
TOGETHER = 8  # each has a cotangent of every activation


def of_tasks(pull: Callable, tasks: int) -> PyTree:
    """Gradients [T, ...] of the losses [T] that `pull` pulls back: up to `TOGETHER` in one pass.

    One by one on a CPU, where batched by task those of convolutions take three times as long, and
    those of dense heads half as long again.
    """
    one_by_one = lambda units: jax.lax.map(pull, units)[0]
    several = lambda units: jax.lax.map(pull, units, batch_size=TOGETHER)[0]
    together = several if tasks > TOGETHER else lambda units: jax.vmap(pull)(units)[0]
    return jax.lax.platform_dependent(jnp.eye(tasks), cpu=one_by_one, default=together)


def surgery(shared: str, solve: Solver) -> Gradient:
    """A `Player.gradient` for a loss of shape [T]: sum_t a_t g_t, with a of `solve`.

    Gradients of the role `shared` are combined; of all other parameters they are added, for each
    belongs to one task.

    Args:
      shared: a role.
      solve: inner products of the gradients of that role, [T, T], losses, [T], and a key -> a, [T].
    """

    def gradient(loss: Callable, own, key):
        values, pull, aux = jax.vjp(loss, own, has_aux=True)
        each = of_tasks(pull, len(values))
        weights = solve(inner_products(each[shared]), values, key) if shared in each else None
        ones = jnp.ones(len(values))
        combined = {
            role: jax.tree.map(
                lambda leaf, a=weights if role == shared else ones: jnp.tensordot(a, leaf, 1), tree
            )
            for role, tree in each.items()
        }
        return (values, aux), combined

    return gradient


def of_each(losses: Callable, shared: PyTree) -> tuple[Array, PyTree, PyTree]:
    """Losses with their gradients by what the tasks share.

    Args:
      losses: shared -> (losses [T], aux).
      shared: arrays [N, ...].

    Returns:
      the losses, through which nothing flows back to `shared`; their gradients [T, N, ...], which
      are constants; and aux.
    """
    found, pull, aux = jax.vjp(losses, jax.lax.stop_gradient(shared), has_aux=True)
    return found, jax.lax.stop_gradient(of_tasks(pull, len(found))), aux


def carried_back(shared: PyTree, each: PyTree, weights: Array) -> Scalar:
    """0, whose gradient by `shared` is sum_t w_t g_t: the encoder is pulled back once.

    Args:
      shared: arrays [N, ...].
      each: the tasks' gradients by them, [T, N, ...].
      weights: [T].
    """
    moved = jax.tree.map(lambda x: x - jax.lax.stop_gradient(x), shared)
    terms = jax.tree.map(lambda x, g: jnp.sum(jnp.tensordot(weights, g, 1) * x), moved, each)
    return sum(jax.tree.leaves(terms))


def affinities(losses: Callable, shared, rate) -> dict[str, Array]:
    """How tasks bear on each other at the shared parameters, [T, T] each.

    'cosine': of the gradients, <g_i, g_j> / (|g_i| |g_j|). 'lookahead': how much a step for task i
    alone lowers the loss of task j, Z_ij = 1 - L_j(shared - rate g_i) / L_j(shared); Fifty et al.
    2021, "Efficiently identifying task groupings for multi-task learning", arXiv:2109.04617,
    equation 1.

    Args:
      losses: shared parameters -> [T].
      shared: the parameters.
      rate: of the step.
    """
    shared = jax.lax.stop_gradient(shared)
    now, pull = jax.vjp(losses, shared)
    each = of_tasks(pull, len(now))
    products = inner_products(each)
    length = jnp.sqrt(jnp.maximum(jnp.diag(products), 1e-12))
    step = lambda gradient: losses(jax.tree.map(lambda p, g: p - rate * g, shared, gradient))
    found = products / jnp.outer(length, length), 1 - jax.lax.map(step, each) / (now + 1e-12)
    return jax.lax.stop_gradient(dict(zip(AFFINITIES, found, strict=True)))
