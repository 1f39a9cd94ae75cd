"""Balancing leads to the Pareto set: of two quadratics, and of the toy examples of the papers.

The papers of uncertainty weighing, DWA and random weights have no such example.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from scipy import optimize

from tljax.losses.multitask import BALANCERS
from tljax.losses.surgery import SOLVERS, inner_products
from tljax.methods.task_gradients import carried_back, of_each, surgery

# L_t(x) = |x - c_t|^2 / 2 + 0.5, the second stretched: a Pareto-optimal x has opposed gradients.
CENTRES = np.array([[-1.0, 0.5], [2.0, -1.0]])
STRETCH = np.array([[1.0, 1.0], [3.0, 0.5]])
STARTS = jnp.array([[3.0, 3.0], [-2.0, 2.0]])
DECAYING = optax.sgd(lambda count: 0.1 / (1 + count / 50))


def quadratics(x):
    return jnp.sum(STRETCH * (x - CENTRES) ** 2, axis=1) / 2 + 0.5


def best(weights) -> np.ndarray:
    """Where the weighed sum of the quadratics is least."""
    weighed = np.asarray(weights)[:, None] * STRETCH
    return (weighed * CENTRES).sum(axis=0) / weighed.sum(axis=0)


def is_pareto(x, tolerance: float) -> bool:
    """Whether a convex combination of the two gradients is nearly 0, by the closed form."""
    a, b = STRETCH * (np.asarray(x) - CENTRES)
    share = np.clip((b - a) @ b / ((a - b) @ (a - b)), 0, 1)
    return np.linalg.norm(share * a + (1 - share) * b) <= tolerance


def balanced(losses, balancer):
    """`push(x, own, memory, key)`: gradients by both and the memory, as the method has them."""

    def push(x, own, memory, key):
        total = lambda x, own: balancer.total(own, memory, losses(x), key)
        (slope, turn), after = jax.grad(total, (0, 1), has_aux=True)(x, own)
        if balancer.steer:
            norms = jnp.linalg.norm(jax.jacobian(losses)(x), axis=1)
            steer = lambda own: balancer.steer(own, memory, losses(x), norms)
            turn, after = jax.grad(steer, has_aux=True)(own)
        return slope, turn, after

    return push


def descended(losses, balancer, starts, optimizer, steps: int):
    """Where plain steps lead from each start, and what the balancer has learnt by then."""
    rule, push = balancer.optimizer or optimizer, balanced(losses, balancer)

    def step(state, number):
        x, own, memory, moved, turned = state
        key = jax.random.fold_in(jax.random.key(0), number)
        slope, turn, memory = push(x, own, memory, key)
        update, moved = optimizer.update(slope, moved, x)
        x = x + update
        if balancer.follow:
            turn = jax.grad(lambda own: balancer.follow(own, memory, losses(x)))(own)
        update, turned = rule.update(turn, turned, own)
        return (x, optax.apply_updates(own, update), memory, moved, turned), None

    def run(x):
        own, memory = balancer.init(2)
        state = (x, own, memory, optimizer.init(x), rule.init(own))
        return jax.lax.scan(step, state, jnp.arange(steps))[0][:2]

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(run))(starts))


def operated(losses, solver, starts, optimizer, steps: int) -> np.ndarray:
    """Where steps along the direction of gradient surgery lead from each start."""
    gradient = surgery('encoder', solver)

    def step(state, number):
        x, moved = state
        key = jax.random.fold_in(jax.random.key(0), number)
        loss = lambda own: (losses(own['encoder']), None)
        slope = gradient(loss, {'encoder': x}, key)[1]['encoder']
        update, moved = optimizer.update(slope, moved, x)
        return (x + update, moved), None

    run = lambda x: jax.lax.scan(step, (x, optimizer.init(x)), jnp.arange(steps))[0][0]
    return np.asarray(jax.jit(jax.vmap(run))(starts))


@pytest.mark.parametrize('name', SOLVERS)
def test_surgery_reaches_the_pareto_set_of_two_quadratics(name):
    for x in operated(quadratics, SOLVERS[name], STARTS, DECAYING, 1500):
        assert is_pareto(x, 0.05), (name, x)


@pytest.mark.parametrize(
    ('name', 'options', 'weights'),
    [
        ('equal', {}, (1, 1)),
        ('fixed', {'weights': (0.3, 1.7)}, (0.3, 1.7)),
        ('dwa', {'window': 10}, (1, 1)),  # once nothing falls any more
        ('random', {}, (1, 1)),  # on average
    ],
)
def test_weights_that_are_known_reach_the_least_weighed_sum(name, options, weights):
    found, _ = descended(quadratics, BALANCERS[name](**options), STARTS, DECAYING, 1500)
    np.testing.assert_allclose(found, [best(weights)] * 2, atol=0.06 if name == 'random' else 0.01)


def test_uncertainty_reaches_the_sum_weighed_by_its_variances():
    found, own = descended(quadratics, BALANCERS['uncertainty'](), STARTS, DECAYING, 3000)
    for x, log_variance in zip(found, own['log_variance'], strict=True):
        np.testing.assert_allclose(np.exp(log_variance), 2 * quadratics(x), 0.03)
        np.testing.assert_allclose(x, best(np.exp(-log_variance)), atol=0.02)


def test_gradnorm_reaches_where_tasks_are_learnt_at_one_rate():
    """On the Pareto set weighed gradients are alike, and so have to be the shares that are left."""
    found, _ = descended(quadratics, BALANCERS['gradnorm'](), STARTS, DECAYING, 3000)
    for start, x in zip(STARTS, found, strict=True):
        assert is_pareto(x, 0.05), x
        left = quadratics(x) / quadratics(start)
        np.testing.assert_allclose(left[0], left[1], 0.1)


def test_famo_reaches_the_pareto_set():
    for x in descended(quadratics, BALANCERS['famo'](), STARTS, DECAYING, 3000)[0]:
        assert is_pareto(x, 0.05), x


def test_gradients_at_the_features_reach_the_pareto_set():
    """MGDA-UB, whose features here are a turned and stretched x."""
    mixed = jnp.array([[2.0, 0.5], [-0.5, 1.0]])
    heads = lambda features: (quadratics(jnp.linalg.solve(mixed, features)), None)

    def step(number, x):
        def total(x):
            features = mixed @ x
            found, each, _ = of_each(heads, features)
            weights = SOLVERS['mgda'](inner_products(each), found, None)
            return carried_back(features, each, jax.lax.stop_gradient(weights))

        return x - 0.1 / (1 + number / 50) * jax.grad(total)(x)

    for x in jax.vmap(lambda x: jax.lax.fori_loop(0, 1500, step, x))(STARTS):
        assert is_pareto(x, 0.05), x


# The toy example of CAGrad (Liu et al. 2021, arXiv:2110.14048, appendix), with the five starts that
# Nash-MTL and FAMO have: steep valleys of either task above, bowls below; 21 makes all losses
# positive.
TOY_STARTS = jnp.array([[-8.5, 7.5], [0.0, 0.0], [9.0, 9.0], [-7.5, -0.5], [9.0, -1.0]])
TOY_RULE = optax.adam(0.004)


def toy(x):
    a, b = x
    above, below = jnp.maximum(jnp.tanh(b / 2), 0), jnp.maximum(jnp.tanh(-b / 2), 0)
    valley = lambda away: jnp.log(jnp.maximum(jnp.abs(away), 5e-6)) + 6
    bowl = lambda centre: ((a - centre) ** 2 + 0.1 * (b + 8) ** 2) / 10 - 20
    valleys = (valley((-a - 7) / 2 + jnp.tanh(b)), valley((-a + 3) / 2 - jnp.tanh(b) + 2))
    return above * jnp.stack(valleys) + below * jnp.stack([bowl(7), bowl(-7)]) + 21


def toy_front() -> np.ndarray:
    """Points [N, 2] of the toy's Pareto set: below, where the weighed sum's gradient is 0."""

    def slope(b, a):
        weighed = (49 - a**2) / 10 + 0.01 * (b + 8) ** 2 - 20
        return -weighed / 2 / np.cosh(b / 2) ** 2 - 0.02 * np.tanh(b / 2) * (b + 8)

    across = np.linspace(-7, 7, 281)
    return np.array([[a, optimize.brentq(slope, -12, -7, args=(a,))] for a in across])


def from_the_front(found) -> np.ndarray:
    return np.linalg.norm(found[:, None] - toy_front(), axis=-1).min(axis=1)


@pytest.mark.parametrize(
    ('name', 'options', 'steps'),
    [
        ('mgda', {}, 16_000),
        ('imtl', {}, 16_000),
        ('nash', {}, 16_000),
        ('aligned', {}, 16_000),
        ('cagrad', {}, 24_000),
        ('famo', {'decay': 1e-5}, 16_000),
    ],
)
def test_the_toys_front_is_reached_from_every_start(name, options, steps):
    if name in SOLVERS:
        found = operated(toy, partial(SOLVERS[name], **options), TOY_STARTS, TOY_RULE, steps)
    else:
        found, _ = descended(toy, BALANCERS[name](**options), TOY_STARTS, TOY_RULE, steps)
    assert (from_the_front(found) < 0.3).all(), found


def test_the_sum_of_the_toys_losses_stays_in_a_valley():
    found, _ = descended(toy, BALANCERS['equal'](), TOY_STARTS, TOY_RULE, 16_000)
    np.testing.assert_array_equal(from_the_front(found) > 3, [True, False, True, False, False])


def canyons(x):
    """The landscape of Yu et al. 2020, arXiv:2001.06782, figure 1: curved valleys of two tasks."""
    a, b = x
    depth = lambda away: jnp.log(jnp.maximum(jnp.abs(away), 5e-6))
    return jnp.stack(
        [20 * depth(a / 2 + jnp.tanh(b)), 25 * depth(a / 2 - jnp.tanh(b) + 2)]
    )  # which meet at (-2, infinity)


def test_surgery_leaves_the_valley_in_which_the_sum_is_stuck():
    starts, rule = jnp.array([[0.5, -3.0], [2.0, -2.0]]), optax.adam(0.004)
    found = operated(canyons, SOLVERS['pcgrad'], starts, rule, 60_000)
    np.testing.assert_allclose(found[:, 0], -2, atol=0.1)
    assert (found[:, 1] > 3).all()
    stuck, _ = descended(canyons, BALANCERS['equal'](), starts, rule, 60_000)
    assert (np.linalg.norm(stuck - starts, axis=1) < 2.5).all()
    np.testing.assert_allclose(stuck[:, 0] / 2 + np.tanh(stuck[:, 1]), 0, atol=0.1)


def regressions():
    """The toy of Chen et al. 2018, arXiv:1711.02257, section 4, made small, and where it begins.

    Targets are s_t tanh((B + E_t) x), of scales s that are 1 and 100.
    """
    random = np.random.RandomState(0)
    base, own = random.normal(0, 10**0.5, (10, 20)), random.normal(0, 3.5**0.5, (2, 10, 20))
    x = random.normal(0, 20**-0.5, (256, 20))
    y = np.array([1.0, 100.0])[:, None, None] * np.tanh(np.einsum('nd,tod->tno', x, base + own))
    hidden = [random.normal(0, (2 / rows) ** 0.5, (rows, 32)) for rows in (20, 32)]
    start, parts = ravel_pytree(jax.tree.map(jnp.float32, [*hidden, random.randn(2, 32, 10) / 6]))

    def losses(values):
        *layers, heads = parts(values)
        z = jnp.float32(x)
        for kernel in layers:
            z = jax.nn.relu(z @ kernel)
        return jnp.mean((jnp.einsum('nd,tdo->tno', z, heads) - y) ** 2, axis=(1, 2))

    return losses, start


def test_gradnorm_has_tasks_of_unlike_scale_learnt_at_like_rates():
    losses, start = regressions()
    apart = {}
    for name, options in (('equal', {}), ('gradnorm', {'alpha': 0.12})):
        rule = optax.sgd(1e-3, momentum=0.9)
        found, own = descended(losses, BALANCERS[name](**options), start[None], rule, 1500)
        left = losses(found[0]) / losses(start)
        assert (left < 1).all()
        apart[name] = abs(np.log(left[0] / left[1]))
    assert apart['gradnorm'] < apart['equal'] / 2, apart
    assert own['v'][0, 0] > own['v'][0, 1]
