"""Gradient surgery: weights of the tasks' gradients that make one direction of them.

A `Solver` looks at the T x T inner products of the gradients, M[s, t] = <g_s, g_t>, and at the
losses and a key if it needs them: the direction is sum_t a_t g_t. Solvers run a fixed number of
iterations, so that they are part of the compiled step. A task that no example of the batch has a
label of has the gradient 0; the others are weighed as if it were not there.
"""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from tljax.types import Array, Key, PyTree, Scalar, unknown

_TINY = 1e-12

Solver = Callable[..., Array]  # inner products [T, T], losses [T], key, options -> weights [T]


def minimum_on_simplex(value: Callable[[Array], Scalar], present: Array, iterations: int) -> Array:
    """The minimum of a convex function over the simplex [T] of the tasks present [T].

    By pairwise Frank-Wolfe: each iteration moves weight from the corner of the largest slope to
    that of the least, as much as bisection of the slope says (Lacoste-Julien and Jaggi 2015,
    arXiv:1511.05932, algorithm 2). One iteration is exact for two tasks.
    """
    slope, tasks = jax.grad(value), len(present)

    def step(_, weights):
        found = slope(weights)
        to = jax.nn.one_hot(jnp.argmin(jnp.where(present, found, jnp.inf)), tasks)
        of = jax.nn.one_hot(jnp.argmax(jnp.where(weights > 0, found, -jnp.inf)), tasks)

        def halve(_, bounds):
            middle = sum(bounds) / 2
            rising = slope(weights + middle * (to - of)) @ (to - of) > 0
            return jnp.where(rising, bounds[0], middle), jnp.where(rising, middle, bounds[1])

        _, high = jax.lax.fori_loop(0, 24, halve, (jnp.zeros(()), weights @ of))
        return jnp.maximum(weights + high * (to - of), 0.0)

    iterations = 1 if tasks == 2 else iterations
    return jax.lax.fori_loop(0, iterations, step, _mean(present))


def _mean(present: Array) -> Array:
    """The weights [T] that make the mean of the present tasks' gradients."""
    return present / jnp.maximum(present.sum(), 1)


# What a gradient is divided by, of the losses [T] and the gradients' lengths [T].
NORMALIZERS: Mapping[str, Callable[[Array, Array], Array]] = {
    'none': lambda losses, lengths: jnp.ones_like(lengths),
    'l2': lambda losses, lengths: lengths,
    'loss': lambda losses, lengths: losses,
    'loss+': lambda losses, lengths: losses * lengths,
}


def mgda(products: Array, losses: Array, normalize: str = 'none') -> Array:
    """The point of least norm in the convex hull of the gradients: min_a |sum_t a_t g_t / n_t|^2.

    Désidéri 2012; Sener and Koltun 2018, "Multi-task learning as multi-objective optimization",
    arXiv:1810.04650, equation 3 and algorithm 2; for two tasks its equation 5. There n = 1, and in
    their code one of `NORMALIZERS`, so that the task of small gradients does not get most of the
    weight; the direction is sum_t a_t g_t all the same.

    Raises:
      ValueError: `normalize` is none of them.
    """
    if normalize not in NORMALIZERS:
        raise unknown('options.balance.normalize', normalize, NORMALIZERS)
    lengths = jnp.sqrt(jnp.diag(products))
    present = lengths > 0
    # The gradient 0 of an absent task would be the point of least norm.
    scale = jnp.where(present, NORMALIZERS[normalize](losses, lengths), 1.0)
    scaled = products / jnp.outer(scale, scale)
    scaled /= jnp.maximum(jnp.trace(scaled), _TINY)
    return minimum_on_simplex(lambda a: a @ scaled @ a, present, 100)


def pcgrad(products: Array, key: Key) -> Array:
    """Each gradient loses its component along every other that it conflicts with; all are added.

    Yu et al. 2020, "Gradient surgery for multi-task learning", arXiv:2001.06782, algorithm 1: each
    meets the others in an order of its own, drawn anew every step.
    """
    tasks = len(products)

    def projected(task, order):
        def meet(row, other):
            along = jnp.where(other == task, 0.0, jnp.minimum(row @ products[:, other], 0.0))
            return row.at[other].add(-along / jnp.maximum(products[other, other], _TINY)), None

        row, _ = jax.lax.scan(meet, jax.nn.one_hot(task, tasks), order)
        return row

    draw = lambda key: jax.random.permutation(key, tasks)
    orders = jax.vmap(draw)(jax.random.split(key, tasks))
    return jax.vmap(projected)(jnp.arange(tasks), orders).sum(axis=0)


def cagrad(products: Array, c: float = 0.4) -> Array:
    """max_d min_t <g_t, d> subject to |d - g_0| <= c |g_0|, where g_0 is the mean gradient.

    d = g_0 + c |g_0| g_w / |g_w|, with g_w = sum_t w_t g_t and w the minimum over the simplex of
    <g_w, g_0> + c |g_0| |g_w|. Liu et al. 2021, "Conflict-averse gradient descent for multi-task
    learning", arXiv:2110.14048, equation 3 and algorithm 1; there rescaled by 1 / (1 + c^2).
    """
    scaled, present = products / jnp.maximum(jnp.trace(products), _TINY), jnp.diag(products) > 0
    mean = _mean(present)
    radius = c * jnp.sqrt(jnp.maximum(mean @ scaled @ mean, 0.0))
    length = lambda w: jnp.sqrt(jnp.maximum(w @ scaled @ w, 0.0) + _TINY)
    w = minimum_on_simplex(lambda w: w @ scaled @ mean + radius * length(w), present, 100)
    return mean + radius / length(w) * w


def nash(products: Array) -> Array:
    """The bargaining solution a > 0 with M a = 1 / a.

    Navon et al. 2022, "Multi-task learning as a bargaining game", arXiv:2202.01017, claim 3.1. It
    is where a' M a / 2 - sum_t log a_t is least: self-concordant, so that damped Newton steps get
    there from anywhere (Boyd and Vandenberghe, section 9.6), and no sequence of convex programs is
    needed.
    """
    diagonal = jnp.diag(products)
    products = products + 1e-6 * jnp.diag(jnp.mean(diagonal) + jnp.zeros_like(diagonal) + _TINY)

    def step(_, a):
        slope = products @ a - 1 / a
        move = jnp.linalg.solve(products + jnp.diag(1 / a**2), slope)
        length = jnp.sqrt(jnp.maximum(slope @ move, 0.0))
        return a - move / jnp.where(length > 0.25, 1 + length, 1.0)

    return jax.lax.fori_loop(0, 30, step, 1 / jnp.sqrt(jnp.diag(products)))


def nash_scaled(products: Array) -> Array:
    """`nash` of M / |M|, as in its authors' code: the step keeps the gradients' scale."""
    return nash(products / jnp.maximum(jnp.linalg.norm(products), _TINY))


def imtl(products: Array) -> Array:
    """Weights of sum 1 whose direction has the same projection on every gradient: IMTL-G.

    Liu et al. 2021, "Towards impartial multi-task learning", ICLR, equation 6: of all t,
    <sum_s a_s g_s, g_1 / |g_1| - g_t / |g_t|> = 0. Solved as: all projections are 1, and the sum is
    made 1 afterwards; with a little more on the diagonal, for gradients that are parallel.
    """
    lengths = jnp.sqrt(jnp.diag(products))
    present = lengths > 0
    projections = products / jnp.where(present, lengths, 1.0)[:, None]
    little = jnp.where(present, 1e-5 * lengths, 1.0)
    weights = jnp.linalg.solve(projections + jnp.diag(little), present.astype(products.dtype))
    return weights / weights.sum()


def aligned(products: Array) -> Array:
    """The gradients' matrix with all singular values made equal to the least, then added.

    a = sqrt(l_T) V L^(-1/2) V' 1, of the eigenvalues L of M and their vectors V. Senushkin et al.
    2023, "Independent component alignment for multi-task learning", arXiv:2305.19000, algorithm 1.
    Directions whose eigenvalue is 0 to rounding are left out.
    """
    values, vectors = jnp.linalg.eigh(products)
    real = values > 1e-6 * values[-1]
    least = jnp.min(jnp.where(real, values, jnp.inf))
    scale = jnp.where(real, jnp.sqrt(least / jnp.where(real, values, 1.0)), 0.0)
    return vectors @ (scale * vectors.sum(axis=0))


def _solver(solve: Callable[..., Array], *needs: str) -> Solver:
    """A row of the table, of a function of the products and of what it needs besides."""

    @functools.wraps(solve)  # whose keywords it has
    def solver(products, losses, key, **options):
        besides = {'losses': losses, 'key': key}
        return solve(products, *(besides[name] for name in needs), **options)

    return solver


SOLVERS: Mapping[str, Solver] = {
    'mgda': _solver(mgda, 'losses'),
    'pcgrad': _solver(pcgrad, 'key'),
    'cagrad': _solver(cagrad),
    'nash': _solver(nash_scaled),
    'imtl': _solver(imtl),
    'aligned': _solver(aligned),
}


def inner_products(gradients: PyTree) -> Array:
    """[T, T] of leaves [T, ...]."""
    flat = [leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(gradients)]
    return sum(leaf @ leaf.T for leaf in flat)
