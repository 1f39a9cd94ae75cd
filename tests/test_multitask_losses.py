"""What each paper says of its balancer or solver; where steps lead is in test_multitask_descent."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from tljax.losses import multitask
from tljax.losses import surgery as solvers
from tljax.methods.task_gradients import surgery


def gradients(count: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randn(count, 7)


def test_least_norm_of_two_is_the_closed_form():
    for seed in range(5):
        a, b = gradients(2, seed)
        share = np.clip((b - a) @ b / ((a - b) @ (a - b)), 0, 1)
        found = solvers.mgda(jnp.array([[a @ a, a @ b], [a @ b, b @ b]]), jnp.ones(2))
        np.testing.assert_allclose(found, [share, 1 - share], atol=1e-4)


def test_least_norm_of_several_is_that_of_a_quadratic_program():
    g = gradients(4)
    rule = {'type': 'eq', 'fun': lambda w: w.sum() - 1}
    value = lambda w: np.sum((w @ g) ** 2)
    best = optimize.minimize(value, np.full(4, 0.25), bounds=[(0, 1)] * 4, constraints=rule)
    found = np.asarray(solvers.mgda(jnp.array(g @ g.T), jnp.ones(4)))
    assert value(found) <= best.fun * (1 + 1e-2)
    assert abs(found.sum() - 1) < 1e-5
    assert (found >= -1e-6).all()


def projected(g, order):
    """Algorithm 1 by hand: `order` [T, T] of all tasks, of which each skips itself."""
    total = np.zeros(g.shape[1])
    for i, others in enumerate(order):
        own = g[i].copy()
        for j in others:
            if j != i and own @ g[j] < 0:
                own -= own @ g[j] / (g[j] @ g[j]) * g[j]
        total += own
    return total


def test_projected_conflicts_are_those_by_hand_in_every_order():
    g = gradients(3)
    g -= 0.8 * g.mean(axis=0)  # they conflict
    orders = itertools.product(itertools.permutations(range(3)), repeat=3)
    wanted = np.array([projected(g, order) for order in orders])
    keys = jax.random.split(jax.random.key(0), 200)
    weights = jax.vmap(lambda key: solvers.pcgrad(jnp.array(g @ g.T), key))(keys)
    apart = np.abs(np.asarray(weights)[:, None] @ g - wanted).max(axis=-1)  # [keys, orders]
    assert apart.min(axis=1).max() < 1e-4, 'no order gives this direction'
    assert apart.min(axis=0).max() < 1e-4, 'an order is never drawn'
    assert np.abs(wanted - wanted[0]).max() > 0.1, 'all orders give the same'


def test_two_gradients_know_one_order():
    g = gradients(2) * [[1.0], [-1.0]]
    assert g[0] @ g[1] < 0
    for seed in range(3):
        found = solvers.pcgrad(jnp.array(g @ g.T), jax.random.key(seed)) @ g
        np.testing.assert_allclose(found, projected(g, [[1], [0]]), 1e-4, 1e-5)


def test_gradients_that_agree_are_only_added():
    g = np.abs(gradients(3))
    found = solvers.pcgrad(jnp.array(g @ g.T), jax.random.key(0))
    np.testing.assert_allclose(found, np.ones(3), 1e-5)


@pytest.mark.parametrize('name', solvers.NORMALIZERS)
def test_least_norm_is_of_gradients_divided_as_told(name):
    g, losses = gradients(2) * [[1.0], [5.0]], np.array([0.5, 2.0])
    lengths = np.linalg.norm(g, axis=1)
    divisor = {'none': 1.0, 'l2': lengths, 'loss': losses, 'loss+': losses * lengths}[name]
    one, two = g / np.broadcast_to(divisor, 2)[:, None]
    share = np.clip((two - one) @ two / ((one - two) @ (one - two)), 0, 1)  # equation 5
    found = solvers.mgda(jnp.array(g @ g.T), jnp.array(losses), name)
    np.testing.assert_allclose(found, [share, 1 - share], 1e-4, 1e-5)
    absent = jnp.zeros((3, 3)).at[::2, ::2].set(g @ g.T)
    alone = solvers.mgda(absent, jnp.array([0.5, 0.0, 2.0]), name)
    np.testing.assert_allclose(alone, [share, 0, 1 - share], 1e-4, 1e-5)


def test_an_unknown_normalizer_is_refused():
    with pytest.raises(ValueError, match=r"normalize 'length'.*none, l2, loss"):
        solvers.mgda(jnp.eye(2), jnp.ones(2), 'length')


@pytest.mark.parametrize('c', [0.2, 0.8])
def test_conflict_averse_direction_keeps_its_constraint_and_is_best(c):
    g = gradients(3)
    mean = g.mean(axis=0)
    found = np.asarray(solvers.cagrad(jnp.array(g @ g.T), c)) @ g
    radius = c * np.linalg.norm(mean)
    np.testing.assert_allclose(np.linalg.norm(found - mean), radius, 1e-3)
    random = np.random.RandomState(1).randn(20_000, 7)
    others = mean + radius * random / np.linalg.norm(random, axis=1, keepdims=True)
    assert (found @ g.T).min() >= (others @ g.T).min(axis=1).max() - 1e-3


@pytest.mark.parametrize('tasks', [2, 5])
def test_bargaining_solves_its_equation(tasks):
    g = gradients(tasks)
    a = np.asarray(solvers.nash(jnp.array(g @ g.T)), np.float64)
    assert (a > 0).all()
    np.testing.assert_allclose(g @ g.T @ a, 1 / a, 1e-3)


def test_impartial_direction_projects_equally():
    g = gradients(4)
    a = np.asarray(solvers.imtl(jnp.array(g @ g.T)))
    projections = (g @ (a @ g)) / np.linalg.norm(g, axis=1)
    np.testing.assert_allclose(projections, projections[0], 1e-3)
    np.testing.assert_allclose(a.sum(), 1, 1e-4)


def test_aligned_gradients_have_one_singular_value():
    g = gradients(3)
    u, s, v = np.linalg.svd(g, full_matrices=False)
    wanted = (s[-1] * u @ v).sum(axis=0)
    np.testing.assert_allclose(solvers.aligned(jnp.array(g @ g.T)) @ g, wanted, 1e-3, 1e-3)


def test_surgery_leaves_the_tasks_own_parameters_alone():
    own = {'encoder': jnp.array([1.0, 2.0]), 'head': {'a': jnp.array(2.0), 'b': jnp.array(3.0)}}
    tasks = lambda own: jnp.stack(
        [own['head']['a'] * own['encoder'][0], own['head']['b'] * own['encoder'].sum()]
    )
    solve = solvers.SOLVERS['mgda']
    _, found = surgery('encoder', solve)(lambda own: (tasks(own), None), own, jax.random.key(0))
    np.testing.assert_allclose(found['head']['a'], 1.0)
    np.testing.assert_allclose(found['head']['b'], 3.0)


def test_uncertainty_is_least_where_the_variance_is_the_loss():
    balancer = multitask.uncertainty()
    found = jnp.array([0.3, 4.0])
    own = {'log_variance': jnp.log(2 * found)}  # d/ds (exp(-s) L + s / 2) = 0
    slope = jax.grad(lambda own: balancer.total(own, {}, found, None)[0])(own)
    np.testing.assert_allclose(slope['log_variance'], 0, atol=1e-6)


def test_dynamic_weights_follow_the_ratio_of_two_windows():
    balancer = multitask.dwa(temperature=2.0, window=2)
    own, memory = balancer.init(2)
    for value in ([4.0, 1.0], [2.0, 1.0], [1.0, 1.0], [2.0, 1.0]):
        _, memory = balancer.total(own, memory, jnp.array(value), None)
    ratio = np.array([1.5 / 3.0, 1.0])
    wanted = 2 * np.exp(ratio / 2) / np.exp(ratio / 2).sum()
    weigh = lambda x: balancer.total(own, memory, x, None)[0]
    np.testing.assert_allclose(jax.grad(weigh)(jnp.array([1.0, 1.0])), wanted, 1e-5)


def test_fast_adaptive_weights_fall_for_the_task_that_fell():
    balancer = multitask.famo(decay=0.0)
    own, memory = balancer.init(2)
    _, memory = balancer.total(own, memory, jnp.array([1.0, 2.0]), None)
    slope = jax.grad(balancer.follow)(own, memory, jnp.array([0.5, 2.0]))['w']
    # z = (1/2, 1/2), log L - log L' = (log 2, 0): the softmax's Jacobian by hand.
    np.testing.assert_allclose(slope, [np.log(2) / 4, -np.log(2) / 4], 1e-5)
    log = lambda x: balancer.total(own, memory, x, None)[0]
    pull = jax.grad(log)(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(pull, np.array([0.5, 0.25]) / 0.75, 1e-5)


@pytest.mark.parametrize('alpha', [0.0, 0.7, 1.5])
def test_norms_of_gradients_are_steered_as_by_hand(alpha):
    balancer = multitask.gradnorm(alpha)
    own, memory = {'v': jnp.array([0.3, -0.5, 0.1])}, balancer.init(3)[1]
    first, losses, norms = np.array([2.0, 1.0, 4.0]), np.array([1.5, 0.9, 1.0]), [0.5, 2.0, 1.0]
    _, memory = balancer.steer(own, memory, jnp.array(first), jnp.array(norms))
    steer = lambda own: balancer.steer(own, memory, jnp.array(losses), jnp.array(norms))
    (found, after), slope = jax.value_and_grad(steer, has_aux=True)(own)
    share = np.exp(own['v']) / np.exp(own['v']).sum()
    rate = losses / first / (losses / first).mean()
    apart = 3 * share * norms - (3 * share * norms).mean() * rate**alpha
    np.testing.assert_allclose(found, np.abs(apart).sum(), 1e-5)
    jacobian = 3 * (np.diag(share) - np.outer(share, share))  # of the weights by v
    np.testing.assert_allclose(slope['v'], jacobian @ (np.sign(apart) * norms), 1e-4, 1e-6)
    np.testing.assert_allclose(after['first'], first)


def test_first_loss_of_a_task_is_that_of_its_first_labels():
    balancer = multitask.gradnorm()
    own, memory = balancer.init(2)
    for losses in ([0.0, 2.0], [3.0, 1.0], [5.0, 5.0]):
        value, memory = balancer.steer(own, memory, jnp.array(losses), jnp.ones(2))
        assert np.isfinite(value)
    np.testing.assert_allclose(memory['first'], [3.0, 2.0])


def test_the_task_of_larger_gradients_loses_weight():
    """With alpha = 0 all weighed gradients become alike."""
    balancer = multitask.gradnorm(alpha=0.0)
    own, memory = balancer.init(3)
    norms = jnp.array([0.5, 1.0, 2.0])
    for _ in range(300):
        slope = jax.grad(lambda own: balancer.steer(own, memory, jnp.ones(3), norms)[0])(own)
        own = {'v': own['v'] - 0.01 * slope['v']}
    weigh = jax.grad(lambda x: balancer.total(own, memory, x, None)[0])
    weights = np.asarray(weigh(jnp.ones(3)))
    np.testing.assert_allclose(weights.sum(), 3, 1e-5)
    np.testing.assert_allclose(weights * norms, (weights * norms).mean(), rtol=0.1)


def test_random_weights_sum_to_the_number_of_tasks():
    total = multitask.random_weights().total({}, {}, jnp.ones(3), jax.random.key(0))[0]
    np.testing.assert_allclose(total, 3, 1e-5)


def test_fixed_weights_are_one_a_task():
    with pytest.raises(ValueError, match='expected 3, one a task'):
        multitask.fixed((1.0, 2.0)).init(3)
    np.testing.assert_allclose(multitask.fixed((1.0, 2.0)).total({}, {}, jnp.ones(2), None)[0], 3)


@pytest.mark.parametrize('name', solvers.SOLVERS)
def test_tasks_without_labels_leave_a_step_for_the_others(name):
    solve, key = solvers.SOLVERS[name], jax.random.key(0)
    present = jnp.array(gradients(2))
    every = jnp.zeros((3, 7)).at[::2].set(present)  # the second of three has no label
    weights = solve(every @ every.T, jnp.array([2.0, 0.0, 0.5]), key)
    assert np.isfinite(weights).all()
    direction = weights @ every
    assert (direction @ present.T > 0).all(), 'no present task may be worse off'
    alone = solve(jnp.diag(jnp.array([4.0, 0.0])), jnp.array([2.0, 0.0]), key)
    assert np.isfinite(alone).all() and alone[0] > 0.3


def test_parallel_gradients_get_impartial_weights():
    g = jnp.array([[1.0, 2.0], [2.0, 4.0]])
    weights = solvers.imtl(g @ g.T)
    np.testing.assert_allclose(weights, [2 / 3, 1 / 3], atol=0.02)


@pytest.mark.parametrize('name', solvers.SOLVERS)
def test_solvers_weigh_present_tasks_as_if_the_absent_were_not_there(name):
    solve, key = solvers.SOLVERS[name], jax.random.key(0)
    present, own = np.array([0, 2]), gradients(2) * [[1.0], [-3.0]]
    every = jnp.zeros((3, 7)).at[present].set(own)
    losses = jnp.array([2.0, 0.0, 0.5])
    found = solve(every @ every.T, losses, key)
    alone = solve(jnp.array(own @ own.T), losses[present], key)
    np.testing.assert_allclose(found[present], alone, 1e-3)


@pytest.mark.parametrize('name', ['equal', 'dwa', 'uncertainty', 'famo', 'gradnorm'])
def test_balancers_weigh_present_tasks_as_if_the_absent_were_not_there(name):
    balancer, present = multitask.BALANCERS[name](), np.array([0, 2])
    norms, falls = jnp.array([0.7, 0.2]), jnp.array([0.9, 0.6])
    learnt, found = jnp.array([0.4, -0.3]), []
    for tasks, at in ((2, slice(None)), (3, present)):
        put = lambda values: jnp.zeros(tasks).at[at].set(values)
        own, memory = balancer.init(tasks)
        if name == 'dwa':
            memory |= {'last': put(jnp.array([1.0, 2.0])), 'before': put(jnp.array([2.0, 2.5]))}
        own = {role: put(learnt) for role in own}
        if name == 'gradnorm':
            memory = {'first': put(jnp.array([3.0, 2.0]))}
        losses = put(jnp.array([2.0, 0.5]))
        total = lambda own, losses: balancer.total(own, memory, losses, None)[0]
        by_own, by_losses = jax.grad(total, (0, 1))(own, losses)
        if balancer.steer:
            by_own = jax.grad(lambda own: balancer.steer(own, memory, losses, put(norms))[0])(own)
        if balancer.follow:
            memory = balancer.total(own, memory, losses, None)[1]
            by_own = jax.grad(lambda own: balancer.follow(own, memory, losses * put(falls)))(own)
        found.append((by_losses[at], {role: slope[at] for role, slope in by_own.items()}))
    for alone, every in zip(jax.tree.leaves(found[0]), jax.tree.leaves(found[1]), strict=True):
        np.testing.assert_allclose(every, alone, 1e-5)


@pytest.mark.parametrize('name', ['dwa', 'random', 'famo', 'gradnorm', 'uncertainty'])
def test_a_batch_without_any_label_has_a_total_of_0(name):
    balancer = multitask.BALANCERS[name]()
    own, memory = balancer.init(2)
    total = lambda own: balancer.total(own, memory, jnp.zeros(2), jax.random.key(0))[0]
    value, slope = jax.value_and_grad(total)(own)
    assert value == 0 and not any(leaf.any() for leaf in jax.tree.leaves(slope))


def test_random_weights_are_those_of_the_tasks_that_are_there():
    slope = jax.grad(lambda x: multitask.random_weights().total({}, {}, x, jax.random.key(0))[0])
    found = slope(jnp.array([2.0, 0.0, 1.0]))
    np.testing.assert_allclose(found.sum(), 2, 1e-5)
    assert found[1] == 0


def test_a_window_without_labels_leaves_the_average_as_it_was():
    balancer = multitask.dwa(window=2)
    own, memory = balancer.init(2)
    for losses in ([4.0, 1.0], [2.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [1.0, 1.0]):
        _, memory = balancer.total(own, memory, jnp.array(losses), None)
    # Windows of means (3, 1), none, and 1 of the single step that had labels.
    np.testing.assert_allclose(memory['before'], [3.0, 1.0])
    np.testing.assert_allclose(memory['last'], [1.0, 1.0])


def test_absent_labels_add_nothing():
    logits = jnp.array([[2.0, 0.0], [0.0, 5.0]])
    whole = multitask.classification(logits[:1], jnp.array([1]))
    np.testing.assert_allclose(multitask.classification(logits, jnp.array([1, -1])), whole)
    assert multitask.classification(logits, jnp.array([-1, -1])) == 0
    np.testing.assert_allclose(
        multitask.multilabel(jnp.zeros((1, 2)), jnp.array([[1, -1]])), np.log(2), 1e-6
    )
    slope = jax.grad(multitask.regression)(logits, jnp.array([[1.0, jnp.nan], [jnp.nan] * 2]))
    np.testing.assert_allclose(slope, [[2.0, 0], [0, 0]])
