"""Benchmarks of feature vectors: small files in their formats, and the real AwA1."""

import numpy as np
import pytest
from scipy.io import savemat

from tljax.data import sources, zero_shot
from tljax.data.decode import Pixels

NAMES = ('ox', 'polar+bear', 'horse')


def xian(folder, **changes):
    """A folder in Xian et al.'s format: 9 examples of 3 classes in turn; 'horse' is unseen."""
    features = {'features': np.arange(18.0).reshape(2, 9), 'labels': 1 + np.arange(9)[:, None] % 3}
    splits = {
        'allclasses_names': np.array([[name] for name in NAMES], object),
        'trainval_loc': [[1], [2], [4], [5]],
        'train_loc': [[1], [4]],
        'val_loc': [[2], [5]],
        'test_seen_loc': [[7], [8]],
        'test_unseen_loc': [[3], [6], [9]],
    }
    for name, array in changes.items():
        (features if name in features else splits)[name] = array
    savemat(folder / 'res101.mat', features)
    savemat(folder / 'att_splits.mat', {k: v for k, v in splits.items() if v is not None})
    return f'xian:{folder}'


def awa(folder, **changes):
    """A folder like AwA1's: 4 training classes of 5 examples, and a test class."""
    names = ('ox', 'cow', 'polar+bear', 'rat', 'horse')
    lines = [f'     {i}\t{name}\n' for i, name in enumerate(names, start=1)]
    (folder / 'classes.txt').write_text(''.join(lines))
    (folder / 'trainclasses.txt').write_text('cow\nox\nrat\npolar+bear\n')
    (folder / 'testclasses.txt').write_text('horse\n')
    random = np.random.RandomState(0)
    arrays = {'surf': random.randint(1, 9, (25, 3)).astype(np.uint16), 'row': np.arange(25)}
    arrays |= {'phog': random.rand(25, 2).astype(np.float16), 'y': np.arange(25) % 5}
    np.savez(folder / 'features.npz', **(arrays | changes))
    return arrays


def test_xian_numbers_are_from_one(tmp_path):
    spec = xian(tmp_path)
    train, unseen = sources.load(spec, 'trainval'), sources.load(spec, 'test_unseen')
    assert train.classes == unseen.classes == ('ox', 'polar bear', 'horse')
    assert train.labels.tolist() == [0, 1, 0, 1]
    assert unseen.labels.tolist() == [2, 2, 2]
    assert unseen.image == (2,)
    np.testing.assert_array_equal(sources.arrays(unseen), [[2, 11], [5, 14], [8, 17]])
    assert sources.load(spec, 'train').labels.tolist() == [0, 0]
    assert sources.load(spec, 'val').labels.tolist() == [1, 1]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'labels': np.full((9, 1), 4)}, 'res101.mat: labels holds 4; expected 1..3, the number'),
        ({'labels': np.ones((8, 1))}, 'res101.mat: 8 labels of 9 features'),
        ({'trainval_loc': [[0]]}, 'trainval_loc holds 0; expected 1..9, the number of features'),
        ({'val_loc': None}, 'att_splits.mat: has no variable val_loc; did you mean'),
        ({'features': np.full((2, 9), np.nan)}, 'row 0 has features that are not finite'),
        ({'test_unseen_loc': [[3], [4]]}, "trainval_loc and test_unseen_loc .* of 'ox'"),
        ({'val_loc': [[1], [5]]}, "train_loc and val_loc both hold examples of 'ox'"),
    ],
)
def test_bad_xian_files(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        sources.load(xian(tmp_path, **changes), 'trainval')


def test_xian_files_that_are_not_there(tmp_path):
    xian(tmp_path)
    (tmp_path / 'res101.mat').unlink()
    with pytest.raises(ValueError, match=r'res101.mat: there is no such file; Xian et al'):
        sources.load(f'xian:{tmp_path}', 'trainval')


def test_awa_histograms_and_splits(tmp_path):
    arrays = awa(tmp_path)
    parts = {
        s: sources.load(f'awa:{tmp_path}', s)
        for s in (*zero_shot.XIAN_SPLITS, 'val_train', 'val_seen', 'val_unseen')
    }
    labels = {split: part.labels.tolist() for split, part in parts.items()}
    assert set(labels['test_unseen']) == {4}
    assert sorted(labels['test_seen']) == [0, 1, 2, 3]
    assert sorted(labels['trainval']) == sorted([0, 1, 2, 3] * 4)
    assert set(labels['train']) == {0, 1, 3}
    assert set(labels['val']) == {2}
    validation = [set(labels[f'val_{name}']) for name in ('train', 'seen', 'unseen')]
    assert validation == [{0, 1, 3}, {0, 1, 3}, {2}]
    assert sorted(labels['val_train'] + labels['val_seen']) == sorted(labels['train'])
    surf, phog = (arrays[name].astype(float) for name in ('surf', 'phog'))
    both = np.concatenate([x / x.sum(1, keepdims=True) for x in (surf, phog)], axis=1)
    unseen = parts['test_unseen']
    np.testing.assert_allclose(sources.arrays(unseen), both[4::5], rtol=1e-5)
    some = sources.load(f'awa:{tmp_path}#phog', 'test_unseen')
    np.testing.assert_allclose(sources.arrays(some), both[4::5, 3:], rtol=1e-5)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'y': np.zeros(3, int)}, 'features.npz: 25 of surf, but 3 of y'),
        ({'y': np.full(25, 7)}, r'y is in 7..7; expected 0..4, the rows of classes.txt'),
        ({'surf': np.full((25, 3), np.nan)}, 'row 0 has features that are not finite'),
    ],
)
def test_bad_awa_files(changes, message, tmp_path):
    awa(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        sources.load(f'awa:{tmp_path}#surf', 'trainval')


@pytest.mark.parametrize(
    ('write', 'message'),
    [
        (lambda file: file.write_bytes(b''), "a.npz: can't be read as .npz"),
        (lambda file: file.write_text('none'), "a.npz: can't be read as .npz"),
        (lambda file: np.savez(file, surf=np.ones((2, 3))), 'a.npz: has no labels y'),
        (lambda file: np.savez(file, y=np.ones(2)), r'a.npz: has no features \[N, D\] beside y'),
    ],
)
def test_awa_arrays_that_are_none(write, message, tmp_path):
    awa(tmp_path)
    (tmp_path / 'features.npz').unlink()
    write(tmp_path / 'a.npz')
    with pytest.raises(ValueError, match=message):
        sources.load(f'awa:{tmp_path}', 'trainval')


def test_awa_names_that_are_not_there(tmp_path):
    awa(tmp_path)
    with pytest.raises(ValueError, match="has no features 'sift'; "):
        sources.load(f'awa:{tmp_path}#sift', 'trainval')
    (tmp_path / 'testclasses.txt').write_text('hors\n')
    with pytest.raises(
        ValueError, match=r"testclasses.txt: there is no class 'hors'; did you mean"
    ):
        sources.load(f'awa:{tmp_path}', 'trainval')
    (tmp_path / 'features.npz').unlink()
    with pytest.raises(ValueError, match=r'holds 0 .npz files; expected one'):
        sources.load(f'awa:{tmp_path}', 'trainval')


def test_real_awa1(data_root):
    dataset = zero_shot.open_awa(f'{data_root}/awa1#phog', Pixels())
    assert len(dataset.classes) == 50
    assert dataset.sizes['test_unseen'] == 1200
    assert dataset.sizes['trainval'] + dataset.sizes['test_seen'] == 4772
    labels = dataset.read('test_unseen', np.arange(1200)).labels
    assert {dataset.classes[label] for label in labels} >= {'chimpanzee', 'giant panda', 'seal'}
