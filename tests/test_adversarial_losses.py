"""Losses of adversaries and of unlabelled predictions, by NumPy; reversal and multilinear maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy as scipy_entropy

from tljax.losses import adversarial, entropy
from tljax.nets.discriminators import Multilinear, reverse

RANDOM = np.random.RandomState(0)
SOURCE, TARGET = RANDOM.randn(6), RANDOM.randn(4)
LOGITS, OTHER = 2 * RANDOM.randn(2, 7, 5)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_domain_bce_is_the_mean_of_both_domains():
    by_hand = -(np.log(sigmoid(SOURCE)).mean() + np.log(1 - sigmoid(TARGET)).mean()) / 2
    assert float(adversarial.domain_bce(SOURCE, TARGET)) == pytest.approx(by_hand, rel=1e-5)
    v, w = RANDOM.rand(6), RANDOM.rand(4)
    weighed = (v * np.log(sigmoid(SOURCE))).sum() / v.sum()
    weighed += (w * np.log(1 - sigmoid(TARGET))).sum() / w.sum()
    found = float(adversarial.domain_bce(SOURCE, TARGET, (v, w)))
    assert found == pytest.approx(-weighed / 2, rel=1e-5)


def test_inverted_labels_and_accuracy():
    by_hand = -np.log(sigmoid(TARGET)).mean()
    assert float(adversarial.inverted_bce(TARGET)) == pytest.approx(by_hand, rel=1e-5)
    right = ((SOURCE > 0).mean() + (TARGET <= 0).mean()) / 2
    assert float(adversarial.domain_accuracy(SOURCE, TARGET)) == pytest.approx(right)
    assert float(adversarial.domain_accuracy(np.ones(3), np.ones(9))) == 0.5


def test_discrepancy_of_classifiers():
    by_hand = np.abs(softmax(LOGITS, 1) - softmax(OTHER, 1)).sum(1).mean() / 5
    found = float(adversarial.classifier_discrepancy(LOGITS, OTHER))
    assert found == pytest.approx(by_hand, rel=1e-5)
    sure = jnp.array([[50.0, 0.0], [0.0, 50.0]])
    assert float(adversarial.classifier_discrepancy(sure, sure[::-1])) == pytest.approx(1.0)


def test_a_critic_of_slope_one_costs_nothing():
    slope = np.array([0.6, 0.8])
    points = RANDOM.randn(5, 2)
    penalty = lambda s: float(adversarial.gradient_penalty(lambda x: x @ s, jnp.asarray(points)))
    assert penalty(slope) == pytest.approx(0, abs=1e-6)
    assert penalty(3 * slope) == pytest.approx(4.0, rel=1e-5)
    dead = jax.grad(lambda s: adversarial.gradient_penalty(lambda x: x @ s, jnp.ones((2, 2))))
    assert np.isfinite(dead(jnp.zeros(2))).all()
    distance = adversarial.critic_distance(SOURCE, TARGET)
    assert float(distance) == pytest.approx(SOURCE.mean() - TARGET.mean(), rel=1e-5)


def test_entropies():
    soft = softmax(LOGITS, 1)
    each = scipy_entropy(soft, axis=1)
    np.testing.assert_allclose(entropy.entropy(LOGITS), each, rtol=1e-5)
    np.testing.assert_allclose(entropy.entropy_weights(LOGITS), 1 + np.exp(-each), rtol=1e-5)
    for balance in (0.0, 0.5):
        by_hand = each.mean() - balance * scipy_entropy(soft.mean(0))
        found = float(entropy.information_maximisation(LOGITS, balance))
        assert found == pytest.approx(by_hand, rel=1e-5)
    assert not jax.grad(lambda x: entropy.entropy_weights(x).sum())(jnp.asarray(LOGITS)).any()


def test_class_confusion():
    p = softmax(LOGITS / 2.5, 1)
    w = 1 + np.exp(-scipy_entropy(p, axis=1))
    w *= len(p) / w.sum()
    confusion = np.zeros((5, 5))
    for i, row in enumerate(p):
        confusion += w[i] * np.outer(row, row)
    confusion /= confusion.sum(1, keepdims=True)
    by_hand = (confusion.sum() - np.trace(confusion)) / 5
    assert float(entropy.class_confusion(LOGITS)) == pytest.approx(by_hand, rel=1e-5)
    sure = 100 * jnp.eye(5)
    assert float(entropy.class_confusion(sure)) == pytest.approx(0, abs=1e-6)
    hopeless = jnp.asarray(LOGITS).at[:, 2].add(-500.0)  # a class that nothing is taken for
    assert np.isfinite(jax.grad(entropy.class_confusion)(hopeless)).all()


def test_pseudo_labels_are_spread_as_the_source():
    target = 3 * RANDOM.randn(6, LOGITS.shape[1])
    p, q = softmax(LOGITS, 1), softmax(target, 1)
    wanted = np.stack([row * p.mean(0) / q.mean(0) for row in q])
    wanted /= wanted.sum(1, keepdims=True)
    limit = 0.9 * np.mean([row.max() for row in p])
    label, sure = entropy.aligned_pseudo_labels(LOGITS, target)
    np.testing.assert_allclose(label, wanted, rtol=1e-5)
    np.testing.assert_array_equal(sure, [float(row.max() >= limit) for row in wanted])
    assert 0 < sure.sum() < len(sure)
    same, _ = entropy.aligned_pseudo_labels(LOGITS, LOGITS)
    np.testing.assert_allclose(same, p, rtol=1e-5)  # nothing to align
    total = lambda x, y: entropy.aligned_pseudo_labels(x, y)[0][:, 0].sum()
    for gradient in jax.grad(total, (0, 1))(jnp.asarray(LOGITS), jnp.asarray(target)):
        assert not gradient.any()


def test_reversal():
    x = jnp.asarray(SOURCE)
    value, gradient = jax.value_and_grad(lambda x: (reverse(x, jnp.float32(0.3)) ** 2).sum())(x)
    assert float(value) == pytest.approx((SOURCE**2).sum(), rel=1e-5)
    np.testing.assert_allclose(gradient, -0.3 * 2 * SOURCE, rtol=1e-5)


def test_multilinear_is_the_outer_product_or_keeps_its_inner_products():
    features, soft = RANDOM.randn(3, 8), softmax(RANDOM.randn(3, 4), 1)
    exact = Multilinear().apply({}, features, soft)
    outer = np.stack([np.outer(f, g).ravel() for f, g in zip(features, soft, strict=True)])
    np.testing.assert_allclose(exact, outer, rtol=1e-5)
    net = Multilinear(limit=31, width=200_000)
    found, fixed = net.init_with_output(jax.random.key(0), features, soft)
    assert set(fixed) == {'fixed'}, 'nothing that an optimizer moves'
    assert found.shape == (3, 200_000)
    np.testing.assert_allclose(
        found @ found.T, outer @ outer.T, atol=0.03 * (outer**2).sum(1).max()
    )
