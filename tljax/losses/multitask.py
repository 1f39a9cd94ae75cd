"""Losses of several tasks and how they are balanced: arrays to scalars and weights.

There are two kinds of balancing. A `Balancer` makes one number of the T losses; a `Solver` makes
weights of the T x T inner products of the tasks' gradients, M[s, t] = <g_s, g_t>, which is all that
gradient surgery looks at: the direction is sum_t a_t g_t. Solvers run a fixed number of iterations,
so that they are part of the compiled step.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from tljax.types import Array, Key, PyTree, Scalar

_TINY = 1e-12

Solver = Callable[[Array], Array]  # inner products [T, T] -> weights [T]


def classification(logits: Array, label: Array) -> Scalar:
    """Mean cross entropy of the examples that have a label; 0 where none has.

    Args:
      logits: [N, C].
      label: [N] int, -1 where absent.
    """
    each = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(label, 0))
    return masked_mean(each, label >= 0)


def multilabel(logits: Array, label: Array) -> Scalar:
    """Mean binary cross entropy over the entries [N, C] of `label` that are 0 or 1, not -1."""
    return masked_mean(optax.sigmoid_binary_cross_entropy(logits, label), label >= 0)


def regression(output: Array, label: Array) -> Scalar:
    """Mean squared error over the entries [N, C] of `label` that are not NaN."""
    known = jnp.isfinite(label)
    return masked_mean(jnp.square(output - jnp.where(known, label, 0.0)), known)


LOSSES: Mapping[str, Callable[[Array, Array], Scalar]] = {
    'classification': classification,
    'multilabel': multilabel,
    'regression': regression,
}


def masked_mean(values: Array, known: Array) -> Scalar:
    """The mean of the known values, 0 where there is none."""
    return jnp.where(known, values, 0.0).sum() / jnp.maximum(known.sum(), 1)


class Balancer(NamedTuple):
    """One number of several losses, with what it learns and what it remembers.

    `total(own, memory, losses [T], key) -> (scalar, memory)`; `own` are parameters, moved by the
    scalar's gradient, or by that of `follow(own, memory, losses after the step [T])`.
    """

    init: Callable[[int], tuple[PyTree, PyTree]]  # T -> (own, memory)
    total: Callable[[PyTree, PyTree, Array, Key], tuple[Scalar, PyTree]]
    follow: Callable[[PyTree, PyTree, Array], Scalar] | None = None


def _nothing(tasks: int) -> tuple[PyTree, PyTree]:
    del tasks
    return {}, {}


def equal() -> Balancer:
    """sum_t L_t."""
    return Balancer(_nothing, lambda own, memory, losses, key: (losses.sum(), memory))


def fixed(weights: tuple[float, ...] = ()) -> Balancer:
    """sum_t w_t L_t.

    Raises:
      ValueError: there are not as many weights as tasks.
    """

    def init(tasks):
        if len(weights) != tasks:
            raise ValueError(f'weights {weights} are {len(weights)}; expected {tasks}, one a task')
        return {}, {}

    return Balancer(init, lambda own, memory, losses, key: (jnp.array(weights) @ losses, memory))


def uncertainty() -> Balancer:
    """sum_t exp(-s_t) L_t + s_t / 2, where s_t = log sigma_t^2 is learnt.

    Kendall, Gal and Cipolla 2018, "Multi-task learning using uncertainty to weigh losses",
    arXiv:1705.07115, equation 10, with the factor 1/2 of a squared error left to the task's scale.
    """

    def total(own, memory, losses, key):
        s = own['log_variance']
        return jnp.sum(jnp.exp(-s) * losses + s / 2), memory

    return Balancer(lambda tasks: ({'log_variance': jnp.zeros(tasks)}, {}), total)


def dwa(temperature: float = 2.0, window: int = 100) -> Balancer:
    """Weights T softmax(r / temperature), r_t = L_t(k - 1) / L_t(k - 2).

    Liu, Johns and Davison 2019, "End-to-end multi-task learning with attention", arXiv:1803.10704,
    equation 7. L_t(k) is the mean of a window of steps; the paper's is an epoch.
    """

    def init(tasks):
        # Means of the last two windows, and the sum of the current one.
        memory = {'last': jnp.ones(tasks), 'before': jnp.ones(tasks), 'sum': jnp.zeros(tasks)}
        return {}, memory | {'count': jnp.zeros((), jnp.int32)}

    def total(own, memory, losses, key):
        ratio = memory['last'] / jnp.maximum(memory['before'], _TINY)
        weights = len(losses) * jax.nn.softmax(ratio / temperature)
        count, added = memory['count'] + 1, memory['sum'] + jax.lax.stop_gradient(losses)
        full, mean = count % window == 0, added / window
        first = count == window  # of which there is no window before
        before = jnp.where(first, mean, memory['last'])
        memory = {
            'last': jnp.where(full, mean, memory['last']),
            'before': jnp.where(full, before, memory['before']),
            'sum': jnp.where(full, 0.0, added),
            'count': count,
        }
        return weights @ losses, memory

    return Balancer(init, total)


def random_weights() -> Balancer:
    """Weights T softmax(n), n ~ N(0, 1) anew each step: Lin et al. 2022, arXiv:2111.10603."""

    def total(own, memory, losses, key):
        weights = jax.nn.softmax(jax.random.normal(key, losses.shape))
        return len(losses) * weights @ losses, memory

    return Balancer(_nothing, total)


def famo(decay: float = 1e-3) -> Balancer:
    """Equal decrease of the log losses: c sum_t z_t log L_t, z = softmax(w), c = 1/sum_t(z_t/L_t).

    w follows the gradient of sum_t z_t(w) (log L_t - log L_t') + decay |w|^2 / 2, where L' are the
    losses of the same batch after the step. Liu et al. 2023, "FAMO: Fast adaptive multitask
    optimization", arXiv:2306.03792, equation 9 and algorithm 1.
    """

    def total(own, memory, losses, key):
        z = jax.nn.softmax(jax.lax.stop_gradient(own['w']))
        log = jnp.log(losses + _TINY)
        scale = jax.lax.stop_gradient(1 / jnp.sum(z / (losses + _TINY)))
        return scale * z @ log, {'log': jax.lax.stop_gradient(log)}

    def follow(own, memory, losses):
        fall = jax.lax.stop_gradient(memory['log'] - jnp.log(losses + _TINY))
        return jax.nn.softmax(own['w']) @ fall + decay / 2 * jnp.sum(own['w'] ** 2)

    return Balancer(
        lambda tasks: ({'w': jnp.zeros(tasks)}, {'log': jnp.zeros(tasks)}), total, follow
    )


BALANCERS: Mapping[str, Callable[..., Balancer]] = {
    'equal': equal,
    'fixed': fixed,
    'uncertainty': uncertainty,
    'dwa': dwa,
    'random': random_weights,
    'famo': famo,
}


def minimum_on_simplex(value: Callable[[Array], Scalar], tasks: int, iterations: int) -> Array:
    """The minimum over the simplex of a convex function, by pairwise Frank-Wolfe.

    Each iteration moves weight from the corner of the largest slope to that of the least, as much
    as bisection of the slope says (Lacoste-Julien and Jaggi 2015, arXiv:1511.05932, algorithm 2).
    One iteration is exact for two tasks.
    """
    slope = jax.grad(value)

    def step(_, weights):
        found = slope(weights)
        to = jax.nn.one_hot(jnp.argmin(found), tasks)
        of = jax.nn.one_hot(jnp.argmax(jnp.where(weights > 0, found, -jnp.inf)), tasks)

        def halve(_, bounds):
            middle = sum(bounds) / 2
            rising = slope(weights + middle * (to - of)) @ (to - of) > 0
            return jnp.where(rising, bounds[0], middle), jnp.where(rising, middle, bounds[1])

        _, high = jax.lax.fori_loop(0, 24, halve, (jnp.zeros(()), weights @ of))
        return jnp.maximum(weights + high * (to - of), 0.0)

    iterations = 1 if tasks == 2 else iterations
    return jax.lax.fori_loop(0, iterations, step, jnp.full(tasks, 1 / tasks))


def mgda(products: Array) -> Array:
    """The point of least norm in the convex hull of the gradients: min_a |sum_t a_t g_t|^2.

    Désidéri 2012; Sener and Koltun 2018, "Multi-task learning as multi-objective optimization",
    arXiv:1810.04650, equation 3 and algorithm 2; for two tasks its equation 5.
    """
    scaled = products / jnp.maximum(jnp.trace(products), _TINY)
    return minimum_on_simplex(lambda a: a @ scaled @ a, len(products), 100)


def pcgrad(products: Array) -> Array:
    """Each gradient loses its component along every other that it conflicts with; all are added.

    Yu et al. 2020, "Gradient surgery for multi-task learning", arXiv:2001.06782, algorithm 1. The
    others are met in cyclic order from the next task on, not at random; two tasks know no other.
    """
    tasks = len(products)
    rows = []
    for i in range(tasks):
        row = jnp.eye(tasks)[i]
        for j in ((i + k) % tasks for k in range(1, tasks)):
            along = jnp.minimum(row @ products[:, j], 0.0)
            row = row.at[j].add(-along / jnp.maximum(products[j, j], _TINY))
        rows.append(row)
    return jnp.sum(jnp.stack(rows), axis=0)


def cagrad(products: Array, c: float = 0.4) -> Array:
    """max_d min_t <g_t, d> subject to |d - g_0| <= c |g_0|, where g_0 is the mean gradient.

    d = g_0 + c |g_0| g_w / |g_w|, with g_w = sum_t w_t g_t and w the minimum over the simplex of
    <g_w, g_0> + c |g_0| |g_w|. Liu et al. 2021, "Conflict-averse gradient descent for multi-task
    learning", arXiv:2110.14048, equation 3 and algorithm 1; there rescaled by 1 / (1 + c^2).
    """
    tasks = len(products)
    scaled = products / jnp.maximum(jnp.trace(products), _TINY)
    mean = jnp.full(tasks, 1 / tasks)
    radius = c * jnp.sqrt(jnp.maximum(mean @ scaled @ mean, 0.0))
    length = lambda w: jnp.sqrt(jnp.maximum(w @ scaled @ w, 0.0) + _TINY)
    w = minimum_on_simplex(lambda w: w @ scaled @ mean + radius * length(w), tasks, 100)
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
    <sum_s a_s g_s, g_1 / |g_1| - g_t / |g_t|> = 0.
    """
    tasks = len(products)
    unit = products / jnp.sqrt(jnp.maximum(jnp.diag(products), _TINY))[:, None]
    rows = jnp.concatenate([unit[:1] - unit[1:], jnp.ones((1, tasks))])
    return jnp.linalg.solve(rows, jnp.eye(tasks)[-1])


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


SOLVERS: Mapping[str, Solver] = {
    'mgda': mgda,
    'pcgrad': pcgrad,
    'cagrad': cagrad,
    'nash': nash_scaled,
    'imtl': imtl,
    'aligned': aligned,
}


def inner_products(gradients: PyTree) -> Array:
    """[T, T] of leaves [T, ...]."""
    flat = [leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(gradients)]
    return sum(leaf @ leaf.T for leaf in flat)
