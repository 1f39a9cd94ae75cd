"""Divergences against double loops and other people's code in double precision."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import pdist

from tljax import kernels
from tljax.kernels import Gaussians
from tljax.losses import divergence

RANDOM = np.random.RandomState(0)
X, Y = RANDOM.randn(6, 3), 0.5 + 1.5 * RANDOM.randn(6, 3)
MORE = RANDOM.rand(8, 3)
ALL = {
    'biased': partial(divergence.mmd, estimator='biased'),
    'unbiased': divergence.mmd,
    'linear': partial(divergence.mmd, estimator='linear'),
    'coral': divergence.coral,
    'cmd': divergence.cmd,
}


def bandwidth_by_hand(kernel, both):
    distances = pdist(both, 'sqeuclidean')
    return {'mean': distances.mean(), 'median': np.median(distances)}.get(
        kernel.bandwidth, kernel.bandwidth
    )


def kernel_by_hand(kernel, both):
    """k(x, y) of two rows."""
    b, first = bandwidth_by_hand(kernel, both), kernel.count // 2
    steps = [b * kernel.factor ** (u - first) for u in range(kernel.count)]
    return lambda x, y: sum(np.exp(-((x - y) ** 2).sum() / step) for step in steps)


def mmd_by_hand(sources, targets, each, estimator):
    """Loops over examples; layers are multiplied."""
    ks = [
        kernel_by_hand(kernel, np.concatenate([x, y]))
        for kernel, x, y in zip(each, sources, targets, strict=True)
    ]
    xs, ys = [list(zip(*layers, strict=True)) for layers in (sources, targets)]
    k = lambda a, b: np.prod([one(*pair) for one, *pair in zip(ks, a, b, strict=True)])
    n, m = len(xs), len(ys)
    if estimator == 'linear':
        terms = [
            k(xs[i], xs[i + 1]) + k(ys[i], ys[i + 1]) - k(xs[i], ys[i + 1]) - k(xs[i + 1], ys[i])
            for i in range(0, n - 1, 2)
        ]
        return np.mean(terms)
    skip = estimator == 'unbiased'

    def within(rows):
        size = range(len(rows))
        return np.mean([k(rows[i], rows[j]) for i in size for j in size if not skip or i != j])

    across = sum(k(a, b) for a in xs for b in ys) / (n * m)
    return within(xs) + within(ys) - 2 * across


@pytest.mark.parametrize('estimator', divergence.ESTIMATORS)
@pytest.mark.parametrize(
    'kernel', [Gaussians(), Gaussians('median', 2, 3.0), Gaussians(0.8, 1)], ids=str
)
def test_mmd_is_what_loops_find(estimator, kernel):
    found = jax.jit(partial(divergence.mmd, kernel=kernel, estimator=estimator))
    others = (X, Y) if estimator == 'linear' else (X[:5], Y)
    for x, y in [(X, Y), others]:
        by_hand = mmd_by_hand([x], [y], [kernel], estimator)
        assert float(found(x, y)) == pytest.approx(by_hand, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize('estimator', divergence.ESTIMATORS)
def test_joint_mmd_multiplies_the_kernels_of_the_layers(estimator):
    each = [Gaussians('mean', 3), Gaussians(1.68, 1)]
    sources, targets = [X, X[:, :2] ** 2], [Y, np.sin(Y[:, :2])]
    found = divergence.joint_mmd(sources, targets, each, estimator)
    by_hand = mmd_by_hand(sources, targets, each, estimator)
    assert float(found) == pytest.approx(by_hand, rel=1e-5)


def test_mmd_of_four_numbers():
    """Source 0, 1 and target 2, 3 under exp(-d^2)."""
    x, y, e = np.array([[0.0], [1.0]]), np.array([[2.0], [3.0]]), lambda d: np.exp(-(d**2))
    across = (2 * e(2) + e(3) + e(1)) / 4
    wanted = {
        'biased': 2 * (2 + 2 * e(1)) / 4 - 2 * across,
        'unbiased': 2 * e(1) - 2 * across,
        'linear': 2 * e(1) - e(3) - e(1),
    }
    for estimator, value in wanted.items():
        found = divergence.mmd(x, y, Gaussians(1.0, 1), estimator)
        assert float(found) == pytest.approx(value, rel=1e-6), estimator


def test_the_unbiased_estimators_are_0_on_average():
    """The biased one is not: it adds (k(x,x) - k(x,x')) / N for each sample."""
    draws = jnp.asarray(np.random.RandomState(1).randn(2, 400, 6, 2))
    for estimator in divergence.ESTIMATORS:
        one = partial(divergence.mmd, kernel=Gaussians(2.0, 1), estimator=estimator)
        found = np.asarray(jax.vmap(one)(*draws))
        error = found.std() / np.sqrt(len(found))
        assert (abs(found.mean()) < 3 * error) == (estimator != 'biased'), estimator


def test_bandwidths():
    both = np.concatenate([X, Y])
    for kernel in (Gaussians('mean'), Gaussians('median'), Gaussians(3.5)):
        found = kernels.bandwidth(kernel, jnp.asarray(both, jnp.float32))
        assert float(found) == pytest.approx(bandwidth_by_hand(kernel, both), rel=1e-5)


@pytest.mark.parametrize('name', ['mean', 'median'])
def test_the_bandwidth_has_no_gradient(name):
    width = bandwidth_by_hand(Gaussians(name), np.concatenate([X, Y]))
    slopes = [
        jax.grad(partial(divergence.mmd, kernel=Gaussians(b)))(jnp.asarray(X), jnp.asarray(Y))
        for b in (name, float(width))
    ]
    np.testing.assert_allclose(*slopes, rtol=1e-4, atol=1e-6)


def test_coral_is_that_of_numpys_covariances():
    apart = np.cov(X.T) - np.cov(MORE.T)
    wanted = (apart**2).sum() / (4 * 3**2)
    assert float(divergence.coral(X, MORE)) == pytest.approx(wanted, rel=1e-5)
    # Variances 2 and 8 of one feature: (2 - 8)^2 / 4.
    assert float(divergence.coral(np.array([[0.0], [2]]), np.array([[1.0], [5]]))) == 9


def test_cmd_term_by_term():
    span, total = 2.0, np.linalg.norm(X.mean(0) - MORE.mean(0)) / 2.0
    for k in (2, 3, 4):
        c = [((z - z.mean(0)) ** k).mean(0) for z in (X, MORE)]
        total += np.linalg.norm(c[0] - c[1]) / span**k
    assert float(divergence.cmd(X, MORE, 4, span)) == pytest.approx(total, rel=1e-5)
    # Equal means, variances 1 and 4, third and fifth moments 0, fourth ones 1 and 16.
    x, y = np.array([[-1.0], [1]]), np.array([[-2.0], [2]])
    assert float(divergence.cmd(x, y)) == pytest.approx(3 + 15)
    assert float(divergence.cmd(x, y, 1)) == 0


@pytest.mark.parametrize('name', ALL)
def test_gradients_are_those_of_differences(name):
    options = {'kernel': Gaussians(2.0)} if name in divergence.ESTIMATORS else {}
    loss = partial(ALL[name], **options)
    check_grads(loss, (X, Y), order=1, modes=['rev'], atol=1e-3, rtol=1e-2, eps=1e-2)


@pytest.mark.parametrize('name', ALL)
def test_equal_samples(name):
    value, slopes = jax.value_and_grad(ALL[name], (0, 1))(jnp.asarray(X), jnp.asarray(X))
    if name == 'unbiased':  # it leaves out k(x, x) within, and not across
        assert value < 0
        slopes = [slopes[0] - slopes[1]]
    else:
        assert float(value) == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(slopes, 0, atol=1e-6)


@pytest.mark.parametrize('name', ALL)
def test_a_common_offset_and_half_precision_cost_nothing(name):
    found = float(jax.jit(ALL[name])(X, Y))
    assert float(jax.jit(ALL[name])(X + 500, Y + 500)) == pytest.approx(found, rel=1e-3)
    half = [jnp.asarray(z, jnp.bfloat16) for z in (X, Y)]
    value = ALL[name](*half)
    assert value.dtype == jnp.float32
    full = ALL[name](*(z.astype(jnp.float32) for z in half))
    assert float(value) == pytest.approx(float(full), rel=1e-5)


def test_many_at_once_are_each():
    stacked = jnp.stack([jnp.asarray(z, jnp.float32) for z in (X, Y, X * Y)])
    for name, loss in ALL.items():
        found = jax.vmap(loss, (0, None))(stacked, jnp.asarray(Y, jnp.float32))
        each = [loss(z, Y) for z in stacked]
        np.testing.assert_allclose(found, each, rtol=1e-4, atol=1e-6, err_msg=name)


def test_examples_that_are_all_equal():
    same = jnp.ones((4, 3))
    for name, loss in ALL.items():
        value, slope = jax.value_and_grad(loss)(same, same)
        assert float(value) == 0, name
        assert np.isfinite(slope).all(), name


@pytest.mark.parametrize(
    'call, message',
    [
        (lambda: divergence.mmd(X, Y[:, :2]), r'\(6, 3\) and \(6, 2\): expected features'),
        (lambda: divergence.coral(X[:1], Y), '1 and 6 examples; expected 2 or more'),
        (lambda: divergence.mmd(X[:4], Y, estimator='linear'), "4 and 6 .* or 'unbiased'"),
        (lambda: divergence.mmd(X, Y, estimator='unbaised'), "did you mean 'unbiased'"),
        (lambda: divergence.mmd(X, Y, Gaussians('meen')), "'meen'.* did you mean 'mean'"),
        (lambda: divergence.mmd(X, Y, Gaussians(0.0)), 'bandwidth is 0.0; expected a number'),
        (lambda: divergence.mmd(X, Y, Gaussians(1.0, 0)), 'a sum of 0 kernels'),
        (lambda: divergence.joint_mmd([X], [Y], []), '0 kernels; expected one kernel a layer'),
        (lambda: divergence.cmd(X, Y, 0), '0 moments'),
        (lambda: divergence.sinkhorn(X, Y, epsilon=0.0), 'epsilon is 0.0'),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


class TestSinkhorn:
    """What is known in closed form of the Sinkhorn divergence; skipped without OTT-JAX."""

    @pytest.fixture(autouse=True)
    def _ott(self):
        pytest.importorskip('ott')

    def test_a_shift_costs_its_square(self):
        """Whatever the entropy: what a shift adds to each cost is a part of x and one of y."""
        shift = np.array([1.0, -2.0, 0.5])
        for epsilon in (0.05, 0.5):
            value, slope = jax.value_and_grad(partial(divergence.sinkhorn, epsilon=epsilon))(
                jnp.asarray(X), jnp.asarray(X + shift)
            )
            assert float(value) == pytest.approx(shift @ shift, rel=1e-3)
            np.testing.assert_allclose(slope, np.tile(-2 * shift / 6, (6, 1)), rtol=2e-2, atol=5e-3)

    def test_little_entropy_is_the_assignment(self):
        cost = ((X[:, None] - Y[None]) ** 2).sum(-1)
        best = cost[linear_sum_assignment(cost)].mean()
        found = divergence.sinkhorn(X, Y, epsilon=2e-3, iterations=2000)
        assert float(found) == pytest.approx(best, rel=1e-2)

    def test_equal_samples(self):
        value, slope = jax.value_and_grad(divergence.sinkhorn)(jnp.asarray(X), jnp.asarray(X))
        assert float(value) == pytest.approx(0, abs=1e-4)
        np.testing.assert_allclose(slope, 0, atol=1e-3)
        assert float(divergence.sinkhorn(np.ones((4, 3)), np.ones((4, 3)))) == 0


def test_without_ott(monkeypatch):
    monkeypatch.setitem(sys.modules, 'ott.tools.sinkhorn_divergence', None)
    with pytest.raises(ValueError, match=r"OTT-JAX: pip install -e '\.\[ot\]'"):
        divergence.sinkhorn(X, Y)
