"""Transferability scores against NumPy in float64, by hand, and by what they should prefer."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.covariance import ledoit_wolf
from sklearn.datasets import load_digits

from tljax.evaluation import transferability as scores

DIGITS = load_digits()
X, Y = (DIGITS.data[:300] / 16.0).astype(np.float32), DIGITS.target[:300]
RANDOM = np.random.default_rng(0)
NOISE = RANDOM.normal(size=X.shape).astype(np.float32)
SOURCE = softmax(X @ RANDOM.normal(size=(64, 7)), axis=1).astype(np.float32)


def evidence(features, target):
    """LogME of one target as equation 2 says it, with the fixed point run to the end."""
    count, width = features.shape
    alpha = beta = 1.0
    square = np.maximum(np.linalg.eigvalsh(features.T @ features), 0.0)
    for _ in range(2000):
        a = alpha * np.eye(width) + beta * features.T @ features
        m = beta * np.linalg.solve(a, features.T @ target)
        gamma = (beta * square / (alpha + beta * square)).sum()
        alpha, beta = gamma / (m @ m), (count - gamma) / ((features @ m - target) ** 2).sum()
    a = alpha * np.eye(width) + beta * features.T @ features
    m = beta * np.linalg.solve(a, features.T @ target)
    return (
        count / 2 * np.log(beta)
        + width / 2 * np.log(alpha)
        - count / 2 * np.log(2 * np.pi)
        - beta / 2 * ((features @ m - target) ** 2).sum()
        - alpha / 2 * m @ m
        - np.linalg.slogdet(a)[1] / 2
    ) / count


@pytest.mark.parametrize('shape', [(60, 8), (30, 40)], ids=['tall', 'wide'])
def test_logme_is_the_evidence_at_the_fixed_point(shape):
    labels = np.arange(shape[0]) % 3
    features = np.random.default_rng(0).normal(size=shape) + 2.0 * np.eye(shape[1])[labels]
    expected = np.mean([evidence(features, 1.0 * (labels == c)) for c in range(3)])
    found = scores.logme(features.astype(np.float32), labels, classes=3)
    assert float(found) == pytest.approx(expected, abs=2e-3)


def test_logme_of_features_that_say_nothing_is_that_of_the_noise_alone():
    # alpha grows without bound and m vanishes: a Gaussian of the targets' mean square is left.
    half = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    labels = np.tile(np.arange(200) % 2, 2)
    found = scores.logme(np.concatenate([half, -half]), labels, classes=2)
    assert float(found) == pytest.approx(-0.5 * (np.log(2 * np.pi * 0.5) + 1.0), abs=1e-3)


def h_score(features, labels, covariance, least=1e-15):
    means = np.stack([features[labels == label].mean(axis=0) for label in labels])
    between = np.cov(means, rowvar=False, bias=True)
    return np.trace(np.linalg.pinv(covariance, least, hermitian=True) @ between)


def test_h_score_is_its_definition():
    features = X.astype(np.float64)
    least = len(X) * np.finfo(np.float32).eps
    expected = h_score(features, Y, np.cov(features, rowvar=False, bias=True), least)
    assert float(scores.h_score(X, Y, classes=10)) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize('count', [300, 50], ids=['tall', 'wide'])
def test_shrunk_h_score_is_its_definition(count):
    features, labels = X[:count].astype(np.float64), Y[:count]
    covariance, weight = ledoit_wolf(features)
    expected = (1 - weight) * h_score(features, labels, covariance)
    found = scores.h_score(X[:count], labels, classes=10, shrink=True)
    assert float(found) == pytest.approx(expected, rel=1e-3)


def test_leep_and_nce_by_hand():
    # Source class 0 goes with label 0 twice and label 1 once; source class 1 with label 1.
    hard = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], np.float32)
    labels = np.array([0, 0, 1, 1])
    expected = (2 * np.log(2 / 3) + np.log(1 / 3)) / 4
    assert float(scores.leep(hard, labels, classes=2)) == pytest.approx(expected, rel=1e-5)
    assert float(scores.nce(hard, labels, classes=2)) == pytest.approx(expected, rel=1e-5)
    even = np.full((4, 2), 0.5, np.float32)
    assert float(scores.leep(even, labels, classes=2)) == pytest.approx(np.log(0.5), rel=1e-5)


def test_leep_and_nce_are_their_definitions():
    joint = np.stack([SOURCE[c == Y].sum(axis=0) for c in range(10)]) / len(Y)
    expected = np.log(((joint / joint.sum(axis=0))[Y] * SOURCE).sum(axis=1)).mean()
    assert float(scores.leep(SOURCE, Y, classes=10)) == pytest.approx(expected, rel=1e-4)
    hard = SOURCE.argmax(axis=1)
    entropy = 0.0
    for z in np.unique(hard):
        share = np.bincount(Y[hard == z], minlength=10) / (hard == z).sum()
        entropy -= (hard == z).mean() * sum(p * np.log(p) for p in share if p)
    assert float(scores.nce(SOURCE, Y, classes=10)) == pytest.approx(-entropy, rel=1e-4)


def test_neighbour_and_probe_accuracy_by_hand():
    features = np.array([[0.0], [0.1], [0.2], [9.0], [9.1], [0.15]], np.float32)
    labels = np.array([0, 0, 0, 1, 1, 1])
    found = scores.neighbour_accuracy(features, labels, classes=2, k=1, metric='euclidean')
    assert float(found) == pytest.approx(3 / 6)  # the stray one and both of its neighbours fail
    apart = np.repeat([[0.0], [1.0]], 6, axis=0).astype(np.float32)
    assert float(scores.probe_accuracy(apart, np.repeat([0, 1], 6), classes=2)) == 1.0


def test_probe_accuracy_holds_out_what_it_judges():
    wide = RANDOM.normal(size=(100, 300)).astype(np.float32)  # separable, yet nothing to learn
    found = scores.probe_accuracy(wide, np.arange(100) % 2, classes=2)
    assert 0.25 < float(found) < 0.75


@pytest.mark.parametrize('name', sorted(scores.OF_FEATURES))
def test_features_that_separate_classes_rank_above_noise(name):
    score = scores.OF_FEATURES[name]
    steps = [float(score(X + level * NOISE, Y, classes=10)) for level in (0.0, 0.5, 2.0)]
    noise = float(score(NOISE, Y, classes=10))
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] > noise


@pytest.mark.parametrize('name', sorted(scores.OF_PROBABILITIES))
def test_predictions_that_tell_classes_rank_above_chance(name):
    score = scores.OF_PROBABILITIES[name]
    telling = softmax(3.0 * np.eye(10)[Y], axis=1).astype(np.float32)
    assert score(telling, Y, classes=10) > score(SOURCE, Y, classes=10)
    assert score(SOURCE, Y, classes=10) > score(RANDOM.permutation(SOURCE), Y, classes=10)


@pytest.mark.parametrize('name', sorted({**scores.OF_FEATURES, **scores.OF_PROBABILITIES}))
def test_bad_input_is_refused(name):
    score = {**scores.OF_FEATURES, **scores.OF_PROBABILITIES}[name]
    with pytest.raises(ValueError, match='span 0 to 9; expected 0 to 8'):
        score(SOURCE, Y, classes=9)
    with pytest.raises(ValueError, match='not finite'):
        score(SOURCE * np.nan, Y, classes=10)
    with pytest.raises(ValueError, match='2 or more'):
        score(SOURCE, Y * 0, classes=1)


def test_other_bad_arguments_are_refused():
    with pytest.raises(ValueError, match='apply a softmax'):
        scores.leep(X, Y, classes=10)
    with pytest.raises(ValueError, match='k is 300; expected 1 to 299'):
        scores.neighbour_accuracy(X, Y, classes=10, k=300)
    with pytest.raises(ValueError, match='1 folds'):
        scores.probe_accuracy(X, Y, classes=10, folds=1)
    with pytest.raises(ValueError, match='2 examples of each class'):
        scores.probe_accuracy(X[:4], np.array([0, 0, 0, 1]), classes=2)
