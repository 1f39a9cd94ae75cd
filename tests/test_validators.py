"""Validators against independent computations, and what each of them prefers."""

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression

from tljax.evaluation import validators

RANDOM = np.random.RandomState(0)
LOGITS = 3 * RANDOM.randn(23, 4)
SOFT = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)


def test_entropy_and_information_by_hand():
    """Two examples of which each is 0.9 sure, of one class or of different ones."""
    sure = np.log([[0.9, 0.1], [0.9, 0.1]])
    spread = np.log([[0.9, 0.1], [0.1, 0.9]])
    each = -0.9 * np.log(0.9) - 0.1 * np.log(0.1)  # 0.3251
    assert validators.negative_entropy(sure) == pytest.approx(-each)
    assert validators.negative_entropy(spread) == pytest.approx(-each)
    assert validators.information_maximisation(sure) == pytest.approx(0, abs=1e-12)
    assert validators.information_maximisation(spread) == pytest.approx(np.log(2) - each)


def test_entropy_and_information_against_scipy():
    entropies = stats.entropy(SOFT, axis=1)
    assert validators.negative_entropy(LOGITS) == pytest.approx(-entropies.mean())
    mutual = stats.entropy(SOFT.mean(axis=0)) - entropies.mean()
    assert validators.information_maximisation(LOGITS) == pytest.approx(mutual)


def test_certainty_of_one_is_not_the_logarithm_of_zero():
    hard = np.array([[1000.0, 0.0], [0.0, 1000.0]])
    assert validators.negative_entropy(hard) == 0
    assert validators.information_maximisation(hard) == pytest.approx(np.log(2))


@pytest.mark.parametrize('block', [1, 7, 23, 500])
def test_neighbourhood_density_example_by_example(block):
    total = 0.0
    for i in range(23):
        others = [j for j in range(23) if j != i]
        cosine = [
            SOFT[i] @ SOFT[j] / np.sqrt((SOFT[i] @ SOFT[i]) * (SOFT[j] @ SOFT[j])) for j in others
        ]
        near = np.exp(np.array(cosine) / 0.05)
        total += stats.entropy(near / near.sum())
    found = validators.soft_neighbourhood_density(LOGITS, block=block)
    assert found == pytest.approx(total / 23)


def test_neighbourhood_density_by_hand():
    """Two pairs far from each other: one neighbour each, but for a share of e^-20."""
    pairs = 1000.0 * np.eye(2)[[0, 0, 1, 1]]
    share = 1 / (1 + 2 * np.exp(-20.0))
    expected = -share * np.log(share) - (1 - share) * np.log((1 - share) / 2)
    assert validators.soft_neighbourhood_density(pairs) == pytest.approx(expected, rel=1e-6)
    together = np.zeros((4, 2))
    assert validators.soft_neighbourhood_density(together) == pytest.approx(np.log(3))


def test_controlled_risk_by_hand():
    """w = (1, 3), l = (2, 1): w l = (2, 3), Cov = 1, Var = 2, eta = -1/2."""
    found = validators.controlled_risk(np.array([2.0, 1.0]), np.array([1.0, 3.0]))
    assert found == pytest.approx(2.5 - 0.5 * 2 + 0.5)
    alike = validators.controlled_risk(np.array([2.0, 1.0]), np.array([1.0, 1.0]))
    assert alike == pytest.approx(1.5)


def domains(count=(300, 200), shift=1.0, seed=0):
    """Two normal domains of variance 1 in two dimensions, the target shifted along the first."""
    random = np.random.RandomState(seed)
    source, target = (random.randn(n, 2) for n in count)
    target[:, 0] += shift
    return source, target


def test_density_ratio_is_that_of_the_domains():
    source, target = domains((4000, 2000))
    known = np.exp(source[:, 0] - 0.5)  # N(x; 1, 1) / N(x; 0, 1)
    found = validators.density_ratio(source, target)
    assert found.shape == (4000,)
    assert np.abs(np.log(found) - np.log(known)).max() < 0.35
    assert found.mean() == pytest.approx(1, abs=0.05)


def test_density_ratio_against_scikit_learn():
    """Each half judged by the classifier of the other one, at the strength that judges best."""
    source, target = domains()
    x = np.concatenate([source, target])
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    domain = np.repeat([0, 1], [300, 200])
    half = np.concatenate([np.arange(300), np.arange(200)]) % 2
    found = {}
    for strength in (1e-2, 1e-1, 1.0):
        posterior = np.zeros((500, 2))
        for judged in (0, 1):
            # scikit-learn's penalty is on the difference of the two weight vectors.
            model = LogisticRegression(C=2 / (strength * 250), tol=1e-8)
            model.fit(x[half != judged], domain[half != judged])
            posterior[half == judged] = model.predict_proba(x[half == judged])
        likelihood = np.log(posterior[np.arange(500), domain]).mean()
        found[likelihood] = 1.5 * posterior[:300, 1] / posterior[:300, 0]
    expected = found[max(found)]
    np.testing.assert_allclose(validators.density_ratio(source, target), expected, rtol=0.01)


def test_embedded_validation_sees_the_loss_where_the_target_is():
    """Equal mean losses; the better one is low where the target has its examples."""
    source, target = domains()
    right = source[:, 0] > 0
    low, high = np.where(right, 0.1, 0.9), np.where(right, 0.9, 0.1)
    weight = validators.density_ratio(source, target)
    scores = [validators.deep_embedded_validation(loss, source, target) for loss in (low, high)]
    assert scores[0] > scores[1] + 0.2
    assert scores[0] == pytest.approx(-validators.controlled_risk(low, weight))


def test_a_feature_that_never_changes_changes_nothing():
    source, target = domains()
    dead = [np.hstack([x, np.full((len(x), 1), 7.0)]) for x in (source, target)]
    plain = validators.density_ratio(source, target)
    np.testing.assert_allclose(validators.density_ratio(*dead), plain, rtol=1e-3)
