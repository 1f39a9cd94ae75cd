"""Losses of several tasks, and balancers that make one number of them.

The other kind of balancing, which looks at the tasks' gradients, is in `losses.surgery`. A task of
which the batch has no label has the loss 0; the others are weighed as if it were not there.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from tljax.losses.classification import cross_entropies
from tljax.types import Array, Key, PyTree, Scalar

_TINY = 1e-12
_ABSENT = -1e30  # the logit of a task that no example of the batch has a label of


def classification(logits: Array, label: Array, smoothing: float | Array = 0.0) -> Scalar:
    """Mean cross entropy of the examples that have a label; 0 where none has.

    Args:
      logits: [N, C].
      label: [N] int, -1 where absent.
      smoothing: s of `losses.classification.cross_entropies`.
    """
    return masked_mean(cross_entropies(logits, label, smoothing), label >= 0)


def multilabel(logits: Array, label: Array) -> Scalar:
    """Mean binary cross entropy over the entries [N, C] of `label` that are 0 or 1, not -1."""
    return masked_mean(optax.sigmoid_binary_cross_entropy(logits, label), label >= 0)


def regression(output: Array, label: Array) -> Scalar:
    """Mean squared error over the entries [N, C] of `label` that are not NaN."""
    known = jnp.isfinite(label)
    return masked_mean(jnp.square(output - jnp.where(known, label, 0.0)), known)


LOSSES: Mapping[str, Callable[..., Scalar]] = {
    'classification': classification,
    'multilabel': multilabel,
    'regression': regression,
}


def masked_mean(values: Array, known: Array) -> Scalar:
    """The mean of the known values, 0 where there is none."""
    return jnp.where(known, values, 0.0).sum() / jnp.maximum(known.sum(), 1)


def shares(logits: Array, losses: Array) -> Array:
    """The softmax [T] over the tasks that the batch has labels of; 0 for the others."""
    present = losses > 0
    return jax.nn.softmax(jnp.where(present, logits, _ABSENT)) * present


def weights_of(logits: Array, losses: Array) -> Array:
    """`shares` times the number of those tasks."""
    return jnp.sum(losses > 0) * shares(logits, losses)


class Balancer(NamedTuple):
    """One number of several losses, with what it learns and what it remembers.

    `total(own, memory, losses [T], key) -> (scalar, memory)`; `own` are parameters, moved by the
    scalar's gradient, or by that of `follow(own, memory, losses after the step [T])`, or of
    `steer(own, memory, losses [T], norms [T]) -> (scalar, memory)`, which moves nothing else; the
    norms are those of each loss's gradient by what the tasks' heads read. `optimizer` is what `own`
    is moved with; None: as the network is.
    """

    init: Callable[[int], tuple[PyTree, PyTree]]  # T -> (own, memory)
    total: Callable[[PyTree, PyTree, Array, Key], tuple[Scalar, PyTree]]
    follow: Callable[[PyTree, PyTree, Array], Scalar] | None = None
    steer: Callable[[PyTree, PyTree, Array, Array], tuple[Scalar, PyTree]] | None = None
    optimizer: optax.GradientTransformation | None = None


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
            raise ValueError(
                f"balancer 'fixed' has the weights {weights}; expected {tasks}, one a task in "
                'their order, as options.balance.weights'
            )
        return {}, {}

    return Balancer(init, lambda own, memory, losses, key: (jnp.array(weights) @ losses, memory))


def uncertainty() -> Balancer:
    """sum_t exp(-s_t) L_t + s_t / 2, where s_t = log sigma_t^2 is learnt.

    Kendall, Gal and Cipolla 2018, "Multi-task learning using uncertainty to weigh losses",
    arXiv:1705.07115, equation 10, with the factor 1/2 of a squared error left to the task's scale.
    The sum is over the tasks that the batch has labels of: s_t of others would grow with nothing
    to hold it.
    """

    def total(own, memory, losses, key):
        s = own['log_variance']
        return jnp.sum(jnp.exp(-s) * losses + jnp.where(losses > 0, s / 2, 0.0)), memory

    return Balancer(lambda tasks: ({'log_variance': jnp.zeros(tasks)}, {}), total)


def dwa(temperature: float = 2.0, window: int = 100) -> Balancer:
    """Weights T softmax(r / temperature), r_t = L_t(k - 1) / L_t(k - 2), of T tasks with labels.

    Liu, Johns and Davison 2019, "End-to-end multi-task learning with attention", arXiv:1803.10704,
    equation 7. L_t(k) is the mean of those steps of a window that had labels of the task, or the
    last window's if none had; the paper's window is an epoch.
    """

    def init(tasks):
        # Means of the last two windows, 0 before there is one; the current one's sum and number.
        memory = {name: jnp.zeros(tasks) for name in ('last', 'before', 'sum', 'seen')}
        return {}, memory | {'count': jnp.zeros((), jnp.int32)}

    def total(own, memory, losses, key):
        last, before = memory['last'], memory['before']
        ratio = jnp.where(before > 0, last / jnp.where(before > 0, before, 1.0), 1.0)
        weights = weights_of(ratio / temperature, losses)
        count, added = memory['count'] + 1, memory['sum'] + jax.lax.stop_gradient(losses)
        seen, full = memory['seen'] + (losses > 0), count % window == 0
        mean = jnp.where(seen > 0, added / jnp.maximum(seen, 1), last)
        memory = {
            'last': jnp.where(full, mean, last),
            'before': jnp.where(full, last, before),
            'sum': jnp.where(full, 0.0, added),
            'seen': jnp.where(full, 0.0, seen),
            'count': count,
        }
        return weights @ losses, memory

    return Balancer(init, total)


def random_weights() -> Balancer:
    """Weights T softmax(n), n ~ N(0, 1) anew each step: Lin et al. 2022, arXiv:2111.10603."""

    def total(own, memory, losses, key):
        return weights_of(jax.random.normal(key, losses.shape), losses) @ losses, memory

    return Balancer(_nothing, total)


def famo(decay: float = 1e-3, rate: float = 0.025) -> Balancer:
    """Equal decrease of the log losses: c sum_t z_t log L_t, z = softmax(w), c = 1/sum_t(z_t/L_t).

    w follows the gradient of sum_t z_t(w) (log L_t - log L_t') + decay |w|^2 / 2, where L' are the
    losses of the same batch after the step; it is moved by Adam, at a rate of its own, as in the
    authors' code. Liu et al. 2023, "FAMO: Fast adaptive multitask optimization", arXiv:2306.03792,
    equation 9 and algorithm 1. The sums are over the tasks that the batch has labels of.
    """

    def total(own, memory, losses, key):
        z, there = shares(jax.lax.stop_gradient(own['w']), losses), jnp.where(losses > 0, losses, 1)
        log = jnp.log(there)
        scale = 1 / jnp.maximum(jax.lax.stop_gradient(jnp.sum(z / there)), _TINY)
        return scale * z @ log, {'log': jax.lax.stop_gradient(log)}

    def follow(own, memory, losses):
        after = jnp.log(jnp.where(losses > 0, losses, 1.0))
        fall = jax.lax.stop_gradient(memory['log'] - after)
        return shares(own['w'], losses) @ fall + decay / 2 * jnp.sum(own['w'] ** 2)

    init = lambda tasks: ({'w': jnp.zeros(tasks)}, {'log': jnp.zeros(tasks)})
    return Balancer(init, total, follow, optimizer=optax.adam(rate))


def gradnorm(alpha: float = 1.5, rate: float = 0.025) -> Balancer:
    """Weights w = T softmax(v); v is moved so that tasks that lag behind have larger gradients.

    It follows the gradient of sum_t |w_t n_t - c_t|, with the constant c_t = mean(w n) r_t^alpha:
    n_t is the norm of the gradient of L_t, r_t = (L_t / L_t(0)) / mean_s(L_s / L_s(0)) the inverse
    rate at which task t is learnt. Chen et al. 2018, "GradNorm: Gradient normalization for
    adaptive loss balancing in deep multitask networks", arXiv:1711.02257, equations 1 and 2 and
    algorithm 1; moved by Adam at the rate of its section 5. The softmax keeps the weights positive
    and their sum T, the number of tasks with labels, in place of dividing by their sum after every
    step; and the gradients are those by the shared features, in place of the last shared layer's
    weights, so that no layer has to be named.
    """

    def total(own, memory, losses, key):
        return weights_of(jax.lax.stop_gradient(own['v']), losses) @ losses, memory

    def steer(own, memory, losses, norms):
        # A batch without labels of a task has the loss 0: its first loss is yet to come.
        first = jnp.where(memory['first'] > 0, memory['first'], losses)
        left = losses / jnp.maximum(first, _TINY)
        behind = left / jnp.maximum(masked_mean(left, losses > 0), _TINY)
        weighed = weights_of(own['v'], losses) * norms
        wanted = jax.lax.stop_gradient(masked_mean(weighed, losses > 0) * behind**alpha)
        return jnp.abs(weighed - wanted).sum(), {'first': first}

    init = lambda tasks: ({'v': jnp.zeros(tasks)}, {'first': jnp.zeros(tasks)})
    return Balancer(init, total, steer=steer, optimizer=optax.adam(rate))


BALANCERS: Mapping[str, Callable[..., Balancer]] = {
    'equal': equal,
    'fixed': fixed,
    'uncertainty': uncertainty,
    'dwa': dwa,
    'random': random_weights,
    'famo': famo,
    'gradnorm': gradnorm,
}
