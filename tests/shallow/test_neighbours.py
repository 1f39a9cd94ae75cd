"""Neighbours and class means are scikit-learn's; ties fall as documented."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid, NearestNeighbors

from tests.shallow.digits import CLASSES, SUBSETS, TEST, TRAIN, X, Y
from tljax.shallow import linear, neighbours

x, y, held = X[TRAIN], Y[TRAIN], X[TEST]
KS = np.array([1, 4, 7])


@pytest.mark.parametrize('metric', neighbours.METRICS)
def test_votes_are_scikit_learns(metric):
    model = neighbours.fit(x, y, KS, classes=CLASSES, metric=metric)
    votes = neighbours.logits(model, held, block=128)
    assert (votes.sum(axis=-1) == KS[:, None]).all()
    for place, k in enumerate(KS):
        other = KNeighborsClassifier(k, metric=metric, algorithm='brute').fit(x, y)
        assert (votes[place].argmax(axis=-1) == other.predict(held)).mean() >= 0.9975
        np.testing.assert_allclose(votes[place] / k, other.predict_proba(held), atol=0.5)


def test_a_class_without_examples_is_never_the_nearest_mean():
    fit = jax.jit(functools.partial(neighbours.nearest_mean, classes=CLASSES + 1))
    model = fit(x, y, KS)  # compiled, where values are not looked at
    logits = linear.logits(model, held)
    assert np.isfinite(logits).all() and (logits.argmax(-1) < CLASSES).all()


def test_neighbours_are_exact_far_from_the_origin_and_in_any_block():
    model = neighbours.fit(x + 1000.0, y, KS, classes=CLASSES)
    found = [neighbours.nearest(model, held + 1000.0, 5, block=size)[1] for size in (7, 4096)]
    # Blocks of another size are other products, which round differently on some processors.
    assert (found[0] == found[1]).mean() > 0.97
    other = NearestNeighbors(n_neighbors=5, algorithm='brute').fit((x + 1000.0).astype(np.float64))
    exact = other.kneighbors((held + 1000.0).astype(np.float64), return_distance=False)
    assert (np.sort(found[0]) == np.sort(exact)).mean() > 0.995


def test_ties_go_to_the_example_stored_first_and_to_the_lowest_label():
    points = jnp.array([[1.0], [-1.0], [1.0], [-1.0]])
    labels = jnp.array([2, 1, 0, 0])
    model = neighbours.fit(points, labels, np.array([1, 2, 4]), classes=3)
    query = jnp.zeros((1, 1))
    np.testing.assert_array_equal(neighbours.nearest(model, query, 4)[1], [[0, 1, 2, 3]])
    votes = neighbours.logits(model, query)[:, 0]
    np.testing.assert_array_equal(votes, [[0, 0, 1], [0, 1, 1], [2, 1, 1]])
    assert votes.argmax(axis=-1).tolist() == [2, 1, 0]


def test_masked_examples_are_never_found():
    fit = lambda weights: neighbours.fit(x, y, KS, weights, classes=CLASSES)
    votes = jax.vmap(lambda weights: neighbours.logits(fit(weights), held))(SUBSETS)
    for seed, subset in enumerate(SUBSETS > 0):
        alone = neighbours.fit(x[subset], y[subset], KS, classes=CLASSES)
        same = (votes[seed] == neighbours.logits(alone, held)).all(axis=-1)
        assert same.mean() >= 0.995


def test_leaving_one_out_never_finds_itself():
    model = neighbours.fit(x, y, KS, classes=CLASSES)
    first = neighbours.nearest(model, x, 1, itself=False)[1][:, 0]
    other = NearestNeighbors(n_neighbors=2, algorithm='brute').fit(x.astype(np.float64))
    exact = other.kneighbors(x.astype(np.float64), return_distance=False)[:, 1]
    assert (first != np.arange(len(x))).all()
    assert (first == exact).mean() > 0.995


def test_nearest_class_mean_is_scikit_learns():
    model = neighbours.nearest_mean(x, y, np.ones(1), classes=CLASSES)
    other = NearestCentroid().fit(x, y)
    assert (linear.logits(model, held)[0].argmax(axis=-1) == other.predict(held)).all()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'metric': 'euclid'}, "did you mean 'euclidean'"),
        ({'strengths': np.array([1.5])}, 'whole numbers'),
        ({'strengths': np.array([33])}, 'from 1 to most, 32'),
        ({'strengths': np.array([20]), 'weights': np.arange(600) < 15}, 'the 15 examples that'),
    ],
)
def test_bad_choices_are_refused(changes, message):
    arguments = {'features': x, 'labels': y, 'strengths': KS, 'classes': CLASSES} | changes
    with pytest.raises(ValueError, match=message):
        neighbours.fit(**arguments)
