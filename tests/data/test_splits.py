import numpy as np
import pytest
import tensorflow_datasets as tfds

from tljax.data import splits

SIZES = {'train': 997, 'validation': 30, 'test': 45}


def rows(split, sizes=SIZES):
    return [(name, int(r[0]), int(r[-1]) + 1) for name, r in splits.parse(split, sizes) if len(r)]


ALIKE = """
train  train[:10%]  train[33%:66%]  train[-7%:]  train[:-7%]  train[12.5%:]  train[5:-5]  all
test[:5%]+train[-3:]  train[:100]+train[200:300]  train[50%:]+validation  test[49%:51%]
"""


@pytest.mark.parametrize('split', ALIKE.split())
def test_same_rows_as_tfds(split):
    infos = {
        name: tfds.core.SplitInfo(name=name, shard_lengths=[size], num_bytes=0)
        for name, size in SIZES.items()
    }
    instruction = tfds.core.ReadInstruction.from_spec(split)
    expected = [
        (i.splitname, i.from_ or 0, SIZES[i.splitname] if i.to is None else i.to)
        for i in instruction.to_absolute(infos)
    ]
    assert rows(split) == expected


def test_percentages_cover_every_row_once():
    parts = [splits.parse(f'train[{p}%:{p + 1}%]', SIZES)[0][1] for p in range(100)]
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(997))


def test_all_takes_the_same_cut_of_each_split():
    assert rows('all[:10%]') == [('train', 0, 100), ('validation', 0, 3), ('test', 0, 4)]


@pytest.mark.parametrize('name', ['val', 'validation', 'Valid', 'dev'])
def test_validation_by_any_name(name):
    assert rows(name) == [('validation', 0, 30)]


@pytest.mark.parametrize(
    ('split', 'message'),
    [
        ('tset', r"no split 'tset'; there are: train \(997 rows\), validation .* and all"),
        ('train[3]', r'expected \[from:to\] in rows or in percent'),
        ('train[:]', r'expected \[from:to\]'),
        ('train[1:2:3]', r'expected \[from:to\]'),
        ('train[:1shard]', r'expected \[from:to\]'),
        ('train[:10', r"can't read split 'train\[:10'"),
        ('', "can't read split ''"),
        ('train++test', "can't read split"),
        ('train[10:50%]', 'mixes rows and percentages'),
        ('train[:1.5]', '1.5 is not a whole number of rows'),
        ('train[:998]', 'outside of its 997 rows'),
        ('train[:101%]', 'outside of its 997 rows'),
        ('train[5:5]', 'selects no rows'),
        ('train[9:5]', 'selects no rows'),
    ],
)
def test_bad_expressions(split, message):
    with pytest.raises(ValueError, match=message):
        splits.parse(split, SIZES)


def test_a_set_of_one_split_is_told_how_to_cut_it():
    with pytest.raises(ValueError, match=r"cut it, as in 'train\[:80%\]' and 'train\[80%:\]'"):
        splits.parse('test', {'train': 10})


def test_stratified_shares_of_every_class():
    labels = np.repeat([0, 1, 2, 3], [100, 10, 2, 1])
    first, second = splits.stratified(labels, 0.2)
    assert np.bincount(labels[second], minlength=4).tolist() == [20, 2, 1, 0]
    np.testing.assert_array_equal(np.sort(np.concatenate([first, second])), np.arange(113))
    np.testing.assert_array_equal(second, splits.stratified(labels, 0.2)[1])
    assert (second != splits.stratified(labels, 0.2, seed=1)[1]).any()


def test_did_you_mean():
    assert splits.did_you_mean('flpi', ['flip', 'crop']) == "did you mean 'flip'?"
    assert splits.did_you_mean('xyz', ['flip', 'crop']) == 'there is: flip, crop'
