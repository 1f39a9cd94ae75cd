"""Losses against NumPy in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tljax.losses.classification import accuracy, cross_entropy

quick = settings(deadline=None, max_examples=12)
LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0], [-3.0, 4.0, 1.0]])
LABEL = np.array([0, 2, 0])


def by_hand(logits, label, smoothing):
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    log = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    target = np.full(logits.shape, smoothing / logits.shape[1])
    target[np.arange(len(label)), label] += 1 - smoothing
    return -(target * log).sum(1).mean()


@pytest.mark.parametrize('smoothing', [0.0, 0.1, 1.0])
def test_cross_entropy(smoothing):
    found = cross_entropy(jnp.asarray(LOGITS), LABEL, smoothing)
    assert float(found) == pytest.approx(by_hand(LOGITS, LABEL, smoothing), rel=1e-6)


def test_cross_entropy_of_known_numbers():
    assert float(cross_entropy(jnp.zeros((5, 7)), jnp.arange(5))) == pytest.approx(np.log(7))
    sure = jnp.array([[0.0, 200.0]])
    assert float(cross_entropy(sure, jnp.array([1]))) == 0
    assert float(cross_entropy(sure, jnp.array([0]))) == 200


@quick
@given(st.integers(1, 9), st.integers(2, 6), st.floats(0, 1), st.integers(0, 99))
def test_cross_entropy_everywhere(examples, classes, smoothing, seed):
    random = np.random.RandomState(seed)
    logits = random.randn(examples, classes).astype(np.float32) * 30
    label = random.randint(classes, size=examples)
    found = float(cross_entropy(jnp.asarray(logits), jnp.asarray(label), smoothing))
    assert found == pytest.approx(by_hand(logits, label, smoothing), rel=1e-4, abs=1e-5)


def test_the_gradient_is_softmax_minus_target():
    found = jax.grad(cross_entropy)(jnp.asarray(LOGITS, jnp.float32), LABEL, 0.3)
    soft = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    target = 0.7 * np.eye(3)[LABEL] + 0.1
    np.testing.assert_allclose(found, (soft - target) / 3, rtol=1e-5, atol=1e-7)


def test_half_precision_logits_are_summed_in_full():
    logits = jnp.asarray(np.random.RandomState(0).randn(64, 100), jnp.bfloat16)
    label = jnp.arange(64)
    found = cross_entropy(logits, label)
    assert found.dtype == jnp.float32
    assert float(found) == pytest.approx(by_hand(logits.astype(jnp.float32), label, 0), rel=1e-5)


def test_smoothing_may_be_traced():
    smoothing = jnp.array([0.0, 0.2])
    found = jax.jit(jax.vmap(lambda s: cross_entropy(jnp.asarray(LOGITS), LABEL, s)))(smoothing)
    np.testing.assert_allclose(found, [by_hand(LOGITS, LABEL, s) for s in (0, 0.2)], rtol=1e-6)


def test_accuracy():
    assert float(accuracy(jnp.asarray(LOGITS), LABEL)) == pytest.approx(1 / 3)
    assert float(accuracy(jnp.asarray(LOGITS), jnp.array([0, 0, 1]))) == 1
    assert float(accuracy(jnp.asarray(LOGITS), jnp.array([2, 1, 2]))) == 0
