import pickle

import numpy as np
import pytest

from tljax.data import sources


@pytest.fixture(scope='module')
def digits():
    return sources.load('sklearn:digits', 'test')


def test_name_tells_spec_and_split():
    assert sources.load('sklearn:digits', 'test[:9]').name == 'sklearn:digits (test[:9])'


def test_sums_put_parts_one_after_the_other(digits):
    both = sources.load('sklearn:digits', 'test[:5]+train[:3]')
    train = sources.load('sklearn:digits')
    assert both.labels.tolist() == [*digits.labels[:5], *train.labels[:3]]
    np.testing.assert_array_equal(both.fetch(1), digits.fetch(1))
    np.testing.assert_array_equal(both.fetch(6), train.fetch(1))


def test_classes_are_selected_and_relabelled_in_the_given_order(digits):
    source = sources.load('sklearn:digits', 'test', classes=['7', 3])
    assert source.classes == ('7', '3')
    rows = np.flatnonzero(np.isin(digits.labels, [3, 7]))
    np.testing.assert_array_equal(source.labels, np.where(digits.labels[rows] == 7, 0, 1))
    for row in (0, 10, -1):
        np.testing.assert_array_equal(source.fetch(range(len(rows))[row]), digits.fetch(rows[row]))


def test_only_some_classes_keep_their_labels(digits):
    source = sources.load('sklearn:digits', 'test', only=['7', 3])
    assert source.classes == digits.classes
    np.testing.assert_array_equal(source.labels, digits.labels[np.isin(digits.labels, [3, 7])])
    with pytest.raises(ValueError, match="no class 'cat'"):
        sources.load('sklearn:digits', 'test', only=['cat'])
    other = next(c for c in range(10) if c not in digits.labels[:3])
    with pytest.raises(ValueError, match='has no examples of the classes'):
        sources.load('sklearn:digits', 'test[:3]', only=[other])


@pytest.mark.parametrize(
    ('classes', 'message'),
    [
        (['77'], "no class '77'; did you mean '7'"),
        (['cat'], "no class 'cat'; there is: 0, 1, 2"),
        ([10], r'no class 10; they are 0..9'),
        ([-1], 'no class -1'),
        ([1, '1'], 'each once'),
        ([], 'one or more classes'),
    ],
)
def test_classes_that_are_not_there(classes, message):
    with pytest.raises(ValueError, match=message):
        sources.load('sklearn:digits', 'test', classes=classes)


def test_classes_without_examples(digits):
    other = next(c for c in range(10) if c not in digits.labels[:3])
    with pytest.raises(ValueError, match='has no examples of the classes'):
        sources.load('sklearn:digits', 'test[:3]', classes=[other])


@pytest.mark.parametrize('spec', ['mnist', 'tdfs:mnist', 'tfds:', 'sklearn', ''])
def test_unknown_kinds_of_source(spec):
    with pytest.raises(
        ValueError, match=r'expected one of tfds:..., folder:..., images:..., npz:..., sklearn'
    ):
        sources.load(spec)


def test_wishes_are_checked_before_anything_is_read():
    with pytest.raises(ValueError, match='channels must be 1'):
        sources.load('folder:nowhere', channels=4)


def test_arrays_are_the_fetched_rows_with_any_number_of_workers(digits):
    done = []
    expected = np.stack([digits.fetch(row) for row in range(len(digits.labels))])
    for workers in (None, 1, 3):
        images = sources.arrays(digits, workers, lambda *progress: done.append(progress))
        np.testing.assert_array_equal(images, expected)
    assert done[-1] == (599, 599)
    assert [d for d, _ in done] == 3 * sorted({d for d, _ in done})


def test_sources_travel_to_other_processes(digits):
    for source in (digits, sources.load('sklearn:digits', 'all', classes=[1, 2])):
        again = pickle.loads(pickle.dumps(source))
        np.testing.assert_array_equal(again.fetch(5), source.fetch(5))


def test_sampled_rows_are_different_ones_in_order(digits):
    few = sources.sampled(digits, 7)
    rows = sorted(np.random.RandomState(0).permutation(len(digits.labels))[:7])
    assert few.labels.tolist() == digits.labels[rows].tolist()
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(few.fetch(i), digits.fetch(row))
    assert few.name == 'sklearn:digits (test, 7 sampled)'
    assert sources.sampled(digits, 7, seed=1).labels.tolist() != few.labels.tolist()
    assert len(sources.sampled(digits, 597).labels) == 597
    assert sources.sampled(digits, len(digits.labels)) is digits


def test_numbers_that_name_other_classes_are_ambiguous(tmp_path):
    labels = np.arange(6) % 3
    names = np.array(['1', '2', '3'])
    np.savez(tmp_path / 'a.npz', image=np.zeros((6, 4, 4), np.uint8), label=labels, classes=names)
    spec = f'npz:{tmp_path / "a.npz"}'
    for options in ({'classes': (1, 2)}, {'only': (1, 2)}, {'classes': (3, '1')}):
        with pytest.raises(
            ValueError, match=r'class [13] is ambiguous, .* as strings, .*\(.[13].,'
        ):
            sources.load(spec, 'all', **options)
    assert sources.load(spec, 'all', classes=('1', '2')).classes == ('1', '2')
    assert sources.load(spec, 'all', classes=(0,)).classes == ('1',)
