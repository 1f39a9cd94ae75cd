"""The strength chosen in one program is the one that separate fits would choose."""

import jax
import numpy as np
import pytest

from tests.shallow.digits import CLASSES, STRENGTHS, SUBSETS, TEST, TRAIN, VALIDATION, X, Y
from tljax.shallow import PROBES, select
from tljax.shallow.select import Examples, choose

TRAINING = Examples(X[TRAIN], Y[TRAIN], SUBSETS)
HELD = Examples(X[VALIDATION], Y[VALIDATION])
GRIDS = {'neighbours': np.array([1.0, 3.0, 5.0])}


@pytest.mark.parametrize('name', ['ridge', 'logistic', 'neighbours', 'nearest_mean'])
def test_the_choice_is_the_best_of_separate_fits(name):
    probe, grid = PROBES[name], GRIDS.get(name, STRENGTHS)
    found = choose(probe, grid, TRAINING, HELD, classes=CLASSES)
    assert found.curve.shape == (3, len(grid))
    for seed in range(3):
        model = probe.fit(X[TRAIN], Y[TRAIN], grid, SUBSETS[seed], classes=CLASSES)
        right = probe.logits(model, HELD.features).argmax(axis=-1) == HELD.labels
        np.testing.assert_allclose(found.curve[seed], right.mean(axis=1), atol=0.01)
        best = np.flatnonzero(found.curve[seed] == found.curve[seed].max())[-1]
        assert (found.index[seed], found.strength[seed]) == (best, grid[best])
    ours = jax.vmap(probe.logits, (0, None))(found.model, HELD.features)[:, 0].argmax(axis=-1)
    np.testing.assert_allclose((ours == HELD.labels).mean(axis=1), found.curve.max(axis=1), 1e-6)


def test_refitting_uses_both_splits():
    found = choose(PROBES['ridge'], STRENGTHS, TRAINING, HELD, classes=CLASSES, refit=True)
    both = slice(0, 900)
    weights = np.concatenate([SUBSETS[1], np.ones(300, np.float32)])
    alone = PROBES['ridge'].fit(X[both], Y[both], found.strength[1:2], weights, classes=CLASSES)
    np.testing.assert_allclose(found.model.kernel[1], alone.kernel, atol=1e-4)


def test_seeds_side_by_side_are_seeds_in_turn():
    alone, together = (
        choose(PROBES['ridge'], STRENGTHS, TRAINING, HELD, classes=CLASSES, at_once=count)
        for count in (1, 3)
    )
    np.testing.assert_array_equal(alone.index, together.index)
    np.testing.assert_allclose(alone.model.kernel, together.model.kernel, atol=1e-4)


def test_one_program_serves_other_seeds_and_strengths():
    before = select._choose._cache_size()
    for factor in (1.0, 2.0):
        weights = np.roll(SUBSETS, int(factor), axis=1)
        training = TRAINING._replace(weights=weights)
        choose(PROBES['nearest_mean'], STRENGTHS * factor, training, HELD, classes=CLASSES)
    assert select._choose._cache_size() <= before + 1


def test_held_out_weights_count_and_ties_go_to_the_strongest():
    weights = (np.arange(300) < 50).astype(np.float32)
    held = HELD._replace(weights=weights)
    found = choose(PROBES['nearest_mean'], STRENGTHS[::-1], TRAINING, held, classes=CLASSES)
    assert found.strength.tolist() == [STRENGTHS.max()] * 3
    first = Examples(X[600:650], Y[600:650])
    other = choose(PROBES['nearest_mean'], STRENGTHS[::-1], TRAINING, first, classes=CLASSES)
    np.testing.assert_allclose(found.curve, other.curve, rtol=1e-6)


@pytest.mark.parametrize(
    ('training', 'held', 'message'),
    [
        ({'weights': SUBSETS * (Y[TRAIN] != 4)}, {}, r'10 classes of seed 0 have no .* \[4\]'),
        ({}, {'features': X[VALIDATION, :5]}, 'width 5; expected 64'),
        ({}, {'labels': Y[VALIDATION] + 1}, 'validation labels span 1 to 10'),
        ({}, {'weights': np.zeros(300)}, 'one example or more'),
        ({}, {'weights': np.ones((2, 300))}, 'different numbers of seeds'),
    ],
)
def test_bad_splits_are_refused(training, held, message):
    splits = TRAINING._replace(**training), HELD._replace(**held)
    with pytest.raises(ValueError, match=message):
        choose(PROBES['ridge'], STRENGTHS, *splits, classes=CLASSES)


def test_a_grid_of_neighbours_beyond_the_most_is_refused():
    with pytest.raises(ValueError, match='from 1 to most, 8'):
        choose(PROBES['neighbours'], [4, 9], TRAINING, HELD, classes=CLASSES, most=8)


def test_the_chosen_probe_works_on_new_data():
    found = choose(PROBES['ridge'], STRENGTHS, TRAINING, HELD, classes=CLASSES, refit=True)
    logits = jax.vmap(PROBES['ridge'].logits, (0, None))(found.model, X[TEST])[:, 0]
    assert ((logits.argmax(axis=-1) == Y[TEST]).mean(axis=1) > 0.85).all()


@pytest.mark.parametrize('count', [2, 5])
def test_folds_hold_every_example_out_once_and_are_alike(count):
    classes, random = 4, np.random.RandomState(0)
    # One class has one example, and one fewer than there are folds.
    labels = random.permutation(np.repeat(np.arange(classes), [1, 2, 13, 24]))
    weights = (np.arange(40) < 38).astype(np.float32)
    weights[np.flatnonzero(labels < 2)] = 1
    draw = lambda seed: np.asarray(
        select.folds(labels, weights, jax.random.key(seed), classes=classes, count=count)
    )
    held = draw(0)
    assert held.shape == (count, 40)
    np.testing.assert_array_equal(held.sum(0), (weights > 0) & (labels != 0))
    for label in range(1, classes):
        own = held[:, labels == label].sum(1)
        assert own.max() - own.min() <= 1
        assert own.max() < ((labels == label) & (weights > 0)).sum(), 'some are left to fit'
    assert (draw(1) != held).any()
    np.testing.assert_array_equal(draw(0), held)


@pytest.mark.parametrize('name', ['ridge', 'neighbours'])
def test_cross_validation_is_fits_without_each_fold(name):
    probe, grid = PROBES[name], GRIDS.get(name, STRENGTHS)
    weights = SUBSETS[0]
    held = select.folds(Y[TRAIN], weights, jax.random.key(3), classes=CLASSES, count=3)
    run = jax.jit(
        lambda *args: select.cross_validate(
            probe, grid, Examples(X[TRAIN], *args), held, classes=CLASSES
        )
    )
    found, right = run(Y[TRAIN], weights), np.zeros(len(grid))
    for out in np.asarray(held):
        model = probe.fit(X[TRAIN], Y[TRAIN], grid, np.where(out, 0, weights), classes=CLASSES)
        guess = np.asarray(probe.logits(model, X[TRAIN][out])).argmax(-1)
        right += (guess == Y[TRAIN][out]).sum(1)
    np.testing.assert_allclose(found.curve, right / held.sum(), atol=0.01)
    best = np.flatnonzero(np.asarray(found.curve) == found.curve.max())[-1]
    assert (found.index, found.strength) == (best, grid[best])
    alone = probe.fit(X[TRAIN], Y[TRAIN], grid[best : best + 1], weights, classes=CLASSES)
    ours, theirs = (probe.logits(model, X[TEST]) for model in (found.model, alone))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
