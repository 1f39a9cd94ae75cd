import numpy as np
import pytest

from tljax.data import subsets

LABELS = np.random.RandomState(0).permutation(np.repeat(np.arange(4), [30, 20, 12, 50]))


def test_balanced_in_turns_and_without_repeats():
    order = subsets.few_shot_order(LABELS, 12, 4, seed=0)
    assert order.dtype == np.int32
    assert len(set(order.tolist())) == 48
    np.testing.assert_array_equal(LABELS[order], np.tile(np.arange(4), 12))


def test_first_rows_are_nested_subsets():
    most = subsets.few_shot_order(LABELS, 12, 4, seed=3)
    for k in range(1, 12):
        np.testing.assert_array_equal(subsets.few_shot_order(LABELS, k, 4, 3), most[: k * 4])


def test_seeds_differ_and_repeat():
    orders = [subsets.few_shot_order(LABELS, 5, 4, seed).tolist() for seed in (0, 1, 2, 0)]
    assert orders[0] == orders[3]
    assert len({tuple(order) for order in orders}) == 3


def test_every_row_has_its_chance():
    drawn = np.concatenate([subsets.few_shot_order(LABELS, 1, 4, seed) for seed in range(400)])
    assert set(drawn.tolist()) == set(range(len(LABELS)))


def test_numbers_never_change():
    labels = np.arange(20) % 2
    assert subsets.few_shot_order(labels, 3, 2, 0).tolist() == [6, 19, 14, 9, 12, 1]


def test_too_many_names_the_scarce_class_and_the_most_that_works():
    with pytest.raises(ValueError, match=r"13 labels .* class 'bee' has only 12 .* at most 12"):
        subsets.few_shot_order(LABELS, 13, ('ant', 'wasp', 'bee', 'fly'), seed=0)


def test_class_without_examples():
    with pytest.raises(ValueError, match=r"class '4' has only 0"):
        subsets.few_shot_order(LABELS, 1, 5, seed=0)


def test_none_asked():
    with pytest.raises(ValueError, match='at least 1, not 0'):
        subsets.few_shot_order(LABELS, 0, 4, seed=0)
