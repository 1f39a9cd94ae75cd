import time

import numpy as np
import pytest

from tljax.data import reader, sources


def rows_at(step):
    return np.random.RandomState(step).randint(0, 599, (2, 5))


@pytest.fixture(scope='module')
def digits():
    return sources.load('sklearn:digits', 'test')


def same(batch, other):
    assert batch.keys() == other.keys()
    for key in batch:
        np.testing.assert_array_equal(batch[key], other[key])
        assert batch[key].dtype == other[key].dtype


@pytest.mark.parametrize('threads', [1, 2, 16, None])
def test_batches_are_the_fetched_rows(digits, threads):
    batches = list(reader.batches(digits, rows_at, 3, 9, threads=threads))
    assert len(batches) == 6
    for step, batch in enumerate(batches, 3):
        rows = rows_at(step)
        images = np.stack([[digits.fetch(row) for row in member] for member in rows])
        expected = {'image': images, 'label': digits.labels[rows], 'index': rows.astype(np.int32)}
        same(batch, expected)


def test_order_holds_when_some_images_are_slow(digits):
    def fetch(row):
        time.sleep(0.003 * (row % 4))
        return digits.fetch(row)

    slow = reader.batches(digits._replace(fetch=fetch), rows_at, 0, 4, threads=8)
    for batch, expected in zip(slow, reader.batches(digits, rows_at, 0, 4, threads=1), strict=True):
        same(batch, expected)


def test_flat_rows(digits):
    (batch,) = reader.batches(digits, lambda step: np.array([4, 2, 4]), 0, 1)
    assert batch['image'].shape == (3, 8, 8, 1)
    assert batch['index'].tolist() == [4, 2, 4]


def test_a_later_start_goes_on_exactly(digits):
    whole = list(reader.batches(digits, rows_at, 0, 6))
    for batch, expected in zip(reader.batches(digits, rows_at, 4, 6), whole[4:], strict=True):
        same(batch, expected)


def test_no_steps_no_batches(digits):
    assert list(reader.batches(digits, rows_at, 5, 5)) == []


def test_a_reader_may_be_left_early(digits):
    batches = reader.batches(digits, rows_at, 0, 10**6, threads=2)
    next(batches)
    batches.close()


def test_bad_image_comes_out_as_told(digits):
    def fetch(row):
        raise ValueError('cat/3.jpg: is truncated or damaged')

    with pytest.raises(ValueError, match=r'cat/3.jpg: is truncated'):
        list(reader.batches(digits._replace(fetch=fetch), rows_at, 0, 2, threads=4))


def test_processes_give_the_same(digits):
    expected = list(reader.batches(digits, rows_at, 0, 5, threads=1))
    batches = list(reader.batches(digits, rows_at, 0, 5, workers=2))
    for batch, other in zip(batches, expected, strict=True):
        same(batch, other)
