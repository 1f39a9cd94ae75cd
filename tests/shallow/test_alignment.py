"""Alignments of two domains against NumPy and SciPy in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from scipy.spatial.distance import cdist, pdist

from tljax.kernels import Gaussians
from tljax.shallow import alignment
from tljax.shallow.alignment import transform

RANDOM = np.random.RandomState(0)
X = RANDOM.randn(40, 5) @ RANDOM.randn(5, 5) + 3
Y = RANDOM.randn(30, 5) @ RANDOM.randn(5, 5) - 1


def test_coral_is_whitening_and_colouring():
    ours, theirs = np.cov(X.T) + 0.3 * np.eye(5), np.cov(Y.T) + 0.3 * np.eye(5)
    whiten = np.linalg.inv(scipy.linalg.sqrtm(ours))
    wanted = (X - X.mean(0)) @ whiten @ scipy.linalg.sqrtm(theirs) + Y.mean(0)
    found = alignment.coral(X, Y, strength=0.3)
    np.testing.assert_allclose(transform(found.source, X), wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(transform(found.target, Y), Y, rtol=1e-6)


def test_without_regularisation_coral_gives_the_targets_moments():
    found = alignment.coral(X, Y, strength=1e-4)
    moved = np.asarray(transform(found.source, X), np.float64)
    np.testing.assert_allclose(np.cov(moved.T), np.cov(Y.T), atol=2e-2)
    np.testing.assert_allclose(moved.mean(0), Y.mean(0), atol=1e-4)


def test_subspaces_are_those_of_singular_vectors():
    p, q = (np.linalg.svd(z - z.mean(0))[2][:3].T for z in (X, Y))
    found = alignment.subspaces(X, Y, dimensions=3)
    source, target = transform(found.source, X), transform(found.target, Y)
    ours, theirs = (X - X.mean(0)) @ p @ p.T @ q, (Y - Y.mean(0)) @ q
    signs = np.sign((np.asarray(target) * theirs).sum(0))  # of a direction, are free
    np.testing.assert_allclose(target * signs, theirs, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(source * signs, ours, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('fit', [alignment.coral, lambda *a: alignment.subspaces(*a, dimensions=2)])
def test_weights_of_0_leave_examples_out(fit):
    v, w = np.arange(40) % 3 > 0, np.arange(30) < 20
    alone, weighed = fit(X[v], Y[w]), fit(X, Y, v, w)
    products = [
        np.asarray(transform(one.source, X)) @ np.asarray(transform(one.target, Y)).T
        for one in (alone, weighed)
    ]
    np.testing.assert_allclose(*products, rtol=1e-3, atol=1e-2)


def tca_by_hand(k, n, m, dimensions, mu):
    """W of the paper's generalised eigenproblem."""
    e = np.concatenate([np.ones(n) / n, -np.ones(m) / m])[:, None]
    h = np.eye(n + m) - 1 / (n + m)
    _, w = scipy.linalg.eigh(k @ h @ k, k @ e @ e.T @ k + mu * np.eye(n + m))
    w = w[:, ::-1][:, :dimensions]
    return w * np.sqrt((n + m) / np.diag(w.T @ k @ h @ k @ w))


def same_up_to_signs(found, wanted):
    found = np.asarray(found)
    np.testing.assert_allclose(found * np.sign((found * wanted).sum(0)), wanted, atol=5e-3)


@pytest.mark.parametrize('mu', [0.1, 10.0])
def test_tca_with_a_linear_kernel(mu):
    z = np.concatenate([X, Y])
    z = z - z.mean(0)
    wanted = z @ z.T @ tca_by_hand(z @ z.T, 40, 30, 3, mu)
    found = alignment.tca(X, Y, dimensions=3, strength=mu)
    same_up_to_signs(transform(found.source, np.concatenate([X, Y])), wanted)
    more = RANDOM.randn(4, 5)
    by_hand = (
        (more - X.mean(0) * 4 / 7 - Y.mean(0) * 3 / 7) @ z.T @ tca_by_hand(z @ z.T, 40, 30, 3, mu)
    )
    same_up_to_signs(transform(found.target, more), by_hand)


def test_tca_with_a_gaussian_kernel():
    z, more = np.concatenate([X, Y]), RANDOM.randn(9, 5)
    width = np.median(pdist(z, 'sqeuclidean'))
    k = lambda a: np.exp(-cdist(a, z, 'sqeuclidean') / width)
    kernel = Gaussians('median', 1)
    found = alignment.tca(X, Y, dimensions=3, kernel=kernel, strength=0.5)
    wanted = tca_by_hand(k(z), 40, 30, 3, 0.5)
    same_up_to_signs(
        transform(found.source, np.concatenate([z, more]), kernel),
        k(np.concatenate([z, more])) @ wanted,
    )


def test_transfer_components_bring_the_means_together():
    apart = []
    for strength in (1e-3, 1e6):  # the second asks for variance only
        found = alignment.tca(X, Y, dimensions=2, strength=strength)
        source, target = transform(found.source, X), transform(found.target, Y)
        both = np.concatenate([source, target])
        np.testing.assert_allclose(both.var(0), 1, rtol=1e-3)
        apart.append(np.linalg.norm(source.mean(0) - target.mean(0)))
    assert apart[0] < 0.05 * apart[1]


def test_many_at_once():
    xs = jnp.stack([jnp.asarray(X, jnp.float32), jnp.asarray(X[::-1] ** 2, jnp.float32)])
    found = jax.vmap(lambda x: alignment.coral(x, jnp.asarray(Y)).source.kernel)(xs)
    for x, kernel in zip(xs, found, strict=True):
        np.testing.assert_allclose(
            alignment.coral(x, Y).source.kernel, kernel, rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize(
    'call, message',
    [
        (lambda: alignment.coral(X, Y[:, :4]), 'width 5, those of the target 4'),
        (lambda: alignment.coral(X * np.nan, Y), 'source has values that are not finite'),
        (lambda: alignment.coral(X, Y, strength=0.0), 'strength is 0.0; expected it to be over 0'),
        (lambda: alignment.subspaces(X, Y, dimensions=6), 'dimensions is 6; expected 1 to 5'),
        (lambda: alignment.tca(X, Y, dimensions=6), 'dimensions is 6; expected 1 to 5'),
        (lambda: alignment.tca(X, Y, dimensions=2, strength=-1.0), 'strength is -1.0'),
        (lambda: alignment.tca(X, Y, dimensions=2, kernel=Gaussians('x')), "unknown bandwidth 'x'"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
