"""Ridge, logistic regression and the SVM find scikit-learn's optimum on real features."""

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.svm import LinearSVC

from tests.shallow.digits import CLASSES, STRENGTHS, SUBSETS, TEST, TRAIN, X, Y
from tljax.shallow import PROBES, descent, linear, logistic, minibatch, probe, ridge, svm

x, y, held = X[TRAIN], Y[TRAIN], X[TEST]
LINEAR = ('ridge', 'logistic', 'svm', 'nearest_mean')


def scores(kernel, bias):
    return x.astype(np.float64) @ np.asarray(kernel, np.float64) + np.asarray(bias, np.float64)


def logistic_objective(kernel, bias, strength):
    z = scores(kernel, bias)
    z = z - z.max(axis=1, keepdims=True)
    loss = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), y]
    return loss.sum() + strength / 2 * (np.asarray(kernel, np.float64) ** 2).sum()


def svm_objective(kernel, bias, strength):
    sign = 2.0 * np.eye(CLASSES)[y] - 1.0
    hinge = np.maximum(0.0, 1.0 - sign * scores(kernel, bias)) ** 2
    square = (np.asarray(kernel, np.float64) ** 2).sum() + (np.asarray(bias) ** 2).sum()
    return hinge.sum() + strength / 2 * square


OBJECTIVES = {'logistic': logistic_objective, 'svm': svm_objective}


def predictions(model):
    return np.argmax(linear.logits(model, held), axis=-1)


@pytest.mark.parametrize('count', [40, 600], ids=['wide', 'tall'])
def test_ridge_is_scikit_learns(count):
    found = ridge.fit(x[:count], y[:count], STRENGTHS, classes=CLASSES)
    for place, strength in enumerate(STRENGTHS):
        other = RidgeClassifier(alpha=strength).fit(x[:count].astype(np.float64), y[:count])
        np.testing.assert_allclose(found.kernel[place].T, other.coef_, atol=1e-4)
        np.testing.assert_allclose(found.bias[place], other.intercept_, atol=1e-4)
        assert (predictions(found)[place] == other.predict(held)).mean() >= 0.9975


def test_ridge_weighs_examples_as_scikit_learn():
    weights = np.linspace(0.0, 2.0, len(x)).astype(np.float32)
    found = ridge.fit(x, y, STRENGTHS[:1], weights, classes=CLASSES)
    target = 2.0 * np.eye(CLASSES)[y] - 1.0
    other = Ridge(alpha=STRENGTHS[0]).fit(x.astype(np.float64), target, sample_weight=weights)
    np.testing.assert_allclose(found.kernel[0].T, other.coef_, atol=1e-4)


def test_refinement_keeps_ridge_exact_where_float32_squares_do_not():
    spread = x * np.geomspace(1.0, 1e-3, x.shape[1]).astype(np.float32) + 10.0
    other = RidgeClassifier(alpha=1e-3).fit(spread.astype(np.float64), y)
    errors = []
    for refine in (0, 2):
        found = ridge.fit(spread, y, np.array([1e-3]), classes=CLASSES, refine=refine)
        errors.append(np.abs(found.kernel[0].T - other.coef_).max() / np.abs(other.coef_).max())
    assert errors[1] < 2e-3
    assert errors[1] < errors[0]


def test_logistic_regression_is_scikit_learns():
    found = logistic.fit(x, y, STRENGTHS, classes=CLASSES, tolerance=1e-8)
    for place, strength in enumerate(STRENGTHS):
        other = LogisticRegression(C=1 / strength, tol=1e-7, max_iter=2000)
        other.fit(x.astype(np.float64), y)
        ours = logistic_objective(found.kernel[place], found.bias[place], strength)
        theirs = logistic_objective(other.coef_.T, other.intercept_, strength)
        assert ours == pytest.approx(theirs, rel=1e-5)
        assert (predictions(found)[place] == other.predict(held)).all()


def test_logistic_regression_of_two_classes_is_scikit_learns_of_half_the_penalty():
    two = y < 2
    found = logistic.fit(x[two], y[two], np.array([2.0]), classes=2, tolerance=1e-9)
    other = LogisticRegression(C=1.0, tol=1e-7).fit(x[two].astype(np.float64), y[two])
    difference = found.kernel[0, :, 1] - found.kernel[0, :, 0]
    np.testing.assert_allclose(difference, other.coef_[0], atol=2e-3)


def test_minibatches_come_near_the_same_optimum():
    weights = SUBSETS[0]
    exact = logistic.fit(x, y, STRENGTHS, weights, classes=CLASSES)
    found = minibatch.fit(x, y, STRENGTHS, weights, classes=CLASSES, batch=64, steps=1500)
    assert (predictions(found) == predictions(exact)).mean() > 0.97
    again = minibatch.fit(x, y, STRENGTHS, weights, classes=CLASSES, batch=64, steps=1500, key=1)
    assert (again.kernel != found.kernel).any()
    other = np.where(weights[:, None] > 0, x, 7.0)  # what is never drawn does not matter
    same = minibatch.fit(other, y, STRENGTHS, weights, classes=CLASSES, batch=64, steps=1500)
    np.testing.assert_allclose(same.kernel, found.kernel, atol=1e-3)


def test_svm_is_scikit_learns():
    found = svm.fit(x, y, STRENGTHS, classes=CLASSES, tolerance=1e-8)
    for place, strength in enumerate(STRENGTHS):
        other = LinearSVC(C=1 / strength, tol=1e-7, dual=False).fit(x.astype(np.float64), y)
        ours = svm_objective(found.kernel[place], found.bias[place], strength)
        theirs = svm_objective(other.coef_.T, other.intercept_, strength)
        assert ours == pytest.approx(theirs, rel=1e-5)
        assert (predictions(found)[place] == other.predict(held)).mean() >= 0.9975


def test_svm_of_two_classes_and_a_freer_intercept_is_scikit_learns():
    two = y < 2
    found = svm.fit(
        x[two], y[two], np.array([0.5]), classes=2, tolerance=1e-9, intercept_scaling=5.0
    )
    other = LinearSVC(C=2.0, tol=1e-8, dual=False, intercept_scaling=5.0)
    other.fit(x[two].astype(np.float64), y[two])
    np.testing.assert_allclose(found.kernel[0, :, 1], other.coef_[0], atol=2e-3)
    np.testing.assert_allclose(found.kernel[0, :, 0], -other.coef_[0], atol=2e-3)


@pytest.mark.parametrize('name', LINEAR)
def test_examples_of_weight_zero_are_as_if_they_were_absent(name):
    options = {'tolerance': 1e-9} if name in OBJECTIVES else {}
    fit = lambda weights: PROBES[name].fit(x, y, STRENGTHS, weights, classes=CLASSES, **options)
    if name == 'svm':  # its solver is logistic regression's, which runs under vmap here
        ours = fit(SUBSETS[1])
    else:
        ours = jax.tree.map(lambda leaf: leaf[1], jax.vmap(fit)(SUBSETS))
    subset = SUBSETS[1] > 0
    alone = PROBES[name].fit(x[subset], y[subset], STRENGTHS, classes=CLASSES, **options)
    np.testing.assert_allclose(ours.kernel, alone.kernel, atol=5e-3 if options else 1e-4)
    assert (predictions(ours) == predictions(alone)).mean() >= 0.9975


@pytest.mark.parametrize('name', ['ridge', 'logistic'])
def test_a_grid_is_its_single_fits_in_any_order(name):
    options = {'tolerance': 1e-9} if name in OBJECTIVES else {}
    mixed = STRENGTHS[[2, 0, 3, 1]]
    grid = PROBES[name].fit(x, y, mixed, classes=CLASSES, **options)
    for place, strength in enumerate(mixed):
        alone = PROBES[name].fit(x, y, strength[None], classes=CLASSES, **options)
        if name in OBJECTIVES:  # flat near its minimum
            ours = OBJECTIVES[name](grid.kernel[place], grid.bias[place], strength)
            theirs = OBJECTIVES[name](alone.kernel[0], alone.bias[0], strength)
            assert ours == pytest.approx(theirs, rel=1e-5)
        else:
            np.testing.assert_allclose(grid.kernel[place], alone.kernel[0], atol=1e-4)


@pytest.mark.parametrize('name', ['logistic', 'svm'])
def test_a_long_path_stays_at_its_minima_by_default(name):
    strengths = np.array([*np.geomspace(1e3, 0.1, 13), 0.1, 0.01])  # one twice, then a gap
    found = PROBES[name].fit(x, y, strengths, classes=CLASSES)
    exact = PROBES[name].fit(x, y, strengths, classes=CLASSES, tolerance=1e-9, steps=3000)
    for ours, best, strength in zip(
        zip(*found, strict=True), zip(*exact, strict=True), strengths, strict=True
    ):
        least = OBJECTIVES[name](*best, strength)
        assert OBJECTIVES[name](*ours, strength) == pytest.approx(least, rel=1e-4)


def test_predictions_reach_as_far_as_the_step_before():
    places = np.array([5.0, 4.0, 2.0, 1.0, 1.0, 0.0])
    np.testing.assert_allclose(descent._reaches(places), [0, 0, 1, 0.5, 0, 0])
    assert descent._reaches(places[:1]).tolist() == [0]


@pytest.mark.parametrize('shape', [(30, 8), (8, 30)], ids=['tall', 'wide'])
def test_basis_keeps_lengths_and_products(shape):
    features = jax.random.normal(jax.random.key(0), shape) + 3.0
    where = descent.basis(features)
    centred = features - features.mean(axis=0)
    np.testing.assert_allclose(where.axes.T @ where.axes, np.eye(8), atol=1e-5)
    np.testing.assert_allclose(where.rows @ where.axes.T, centred, atol=1e-5)
    np.testing.assert_allclose((where.rows**2).mean(axis=0), where.values, atol=1e-5)


def broken(**changes):
    return {'features': x, 'labels': y, 'strengths': STRENGTHS, 'classes': CLASSES} | changes


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'classes': 1}, '2 or more'),
        ({'classes': 5}, 'span 0 to 9; expected 0 to 4'),
        ({'classes': 11}, r'no example of positive weight: \[10\]'),
        ({'labels': y - 1}, 'span -1 to 8'),
        ({'labels': y[:-1]}, r'expected \[600\] int'),
        ({'labels': y.astype(np.float32)}, 'float32'),
        ({'weights': (y != 3).astype(np.float32)}, r'positive weight: \[3\]'),
        ({'weights': -np.ones(len(y))}, '0 or more'),
        ({'weights': np.ones(3)}, r'expected \[600\]'),
        ({'features': np.where(x == x[5, 20], np.nan, x)}, 'not finite'),
        ({'features': x.astype(np.int32)}, 'expected floats'),
        ({'features': x[0]}, r'expected \[N, D\]'),
        ({'strengths': np.array([1.0, 0.0])}, 'over 0'),
        ({'strengths': np.array([])}, 'R over 0'),
    ],
)
@pytest.mark.parametrize('name', sorted(PROBES))
def test_bad_input_is_refused_with_the_reason(name, changes, message):
    with pytest.raises(ValueError, match=message):
        PROBES[name].fit(**broken(**changes))


def test_minibatches_need_a_size():
    with pytest.raises(ValueError, match='batch is 0'):
        minibatch.fit(x, y, STRENGTHS, classes=CLASSES, batch=0)


def test_an_unknown_probe_suggests_the_closest():
    assert probe('ridge') is PROBES['ridge']
    with pytest.raises(ValueError, match="did you mean 'logistic'"):
        probe('logstic')
