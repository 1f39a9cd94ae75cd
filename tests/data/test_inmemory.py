import numpy as np
import pytest
from sklearn.datasets import load_digits

from tljax.data import sources


def load(path, split='train', **options):
    return sources.load(f'npz:{path}', split, **options)


def images(count, *shape, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (count, *shape)).astype(np.uint8)


@pytest.fixture
def write(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / 'set.npz', **arrays)
        return tmp_path / 'set.npz'

    return write


def test_digits_are_split_two_to_one_in_every_class():
    train, test = (sources.load('sklearn:digits', split) for split in ('train', 'test'))
    assert train.classes == tuple('0123456789')
    assert train.image == (8, 8, 1)
    assert (len(train.labels), len(test.labels)) == (1198, 599)
    shares = np.bincount(test.labels) / (np.bincount(train.labels) + np.bincount(test.labels))
    assert abs(shares - 1 / 3).max() < 0.01
    assert train.labels.dtype == np.int32


def test_digits_hold_all_of_scikit_learns_images_scaled():
    every = sources.arrays(sources.load('sklearn:digits', 'all'))
    assert every.dtype == np.uint8
    assert (every.min(), every.max()) == (0, 255)
    expected = np.round(load_digits().images * 255 / 16).astype(np.uint8)
    assert sorted(x.tobytes() for x in every) == sorted(x.tobytes() for x in expected)


def test_digits_to_other_sizes_and_channels():
    source = sources.load('sklearn:digits', 'test[:4]', size=16, channels=3)
    assert sources.arrays(source).shape == (4, 16, 16, 3)


def test_unknown_scikit_learn_set():
    with pytest.raises(ValueError, match="no data set sklearn:digit; did you mean 'digits'"):
        sources.load('sklearn:digit')


def test_one_pool_is_divided_and_keeps_its_order(write):
    image, label = images(50, 4, 4), np.arange(50) % 5
    path = write(image=image, label=label)
    train, test = load(path), load(path, 'test')
    assert np.bincount(test.labels).tolist() == [2] * 5
    assert len(train.labels) == 40
    assert train.classes == tuple('01234')
    kept = [
        np.flatnonzero((image == source.fetch(0)[..., 0]).all((1, 2)))[0]
        for source in (train, test)
    ]
    assert kept[0] != kept[1]
    np.testing.assert_array_equal(train.fetch(0)[..., 0], image[kept[0]])


@pytest.mark.parametrize(
    'keys',
    [('{}_image', '{}_label'), ('{}_images', '{}_labels'), ('x_{}', 'y_{}')],
    ids=['ours', 'medmnist', 'keras'],
)
def test_arrays_for_each_split(write, keys):
    arrays = {}
    for split, count in (('train', 6), ('test', 4)):
        arrays[keys[0].format(split)] = images(count, 5, 5, 3)
        arrays[keys[1].format(split)] = (np.arange(count) % 2)[:, None]
    source = load(write(**arrays, classes=np.array(['cat', 'dog'])), 'test')
    assert source.classes == ('cat', 'dog')
    assert source.labels.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(sources.arrays(source), arrays[keys[0].format('test')])


def test_floats_bools_and_wide_integers_become_bytes(write):
    label = np.arange(6) % 2
    floats = np.linspace(0, 1, 6 * 4, dtype=np.float32).reshape(6, 2, 2)
    for array, expected in (
        (floats, np.round(floats * 255)),
        (floats > 0.5, (floats > 0.5) * 255),
        (np.round(floats * 255).astype(np.int64), np.round(floats * 255)),
    ):
        source = load(write(train_image=array, train_label=label))
        np.testing.assert_array_equal(sources.arrays(source)[..., 0], expected)


@pytest.mark.parametrize(
    ('arrays', 'message'),
    [
        ({'label': np.array([0, 1, 0, -3])}, r'set.npz: row 3 has the label -3; .* at least 0'),
        (
            {'label': np.array([0, 1, 7, 9]), 'classes': np.array(['a', 'b'])},
            r'set.npz: row 2 has the label 7; labels must be in 0..1, as it has 2 classes',
        ),
        (
            {'label': np.array([0, 1])},
            r'labels are int64 of shape \[2\]; expected whole numbers \[4\]',
        ),
        ({'label': np.array([0, 1, 0.5, 1])}, r'labels are float64 of shape \[4\]'),
        ({'label': np.zeros(4, int)}, 'has only the class 0; expected two or more'),
        (
            {'image': np.full((4, 2, 2), 3.5)},
            r'float64 images have values in \[3.5, 3.5\]; .* floats in \[0, 1\]',
        ),
        ({'image': np.full((4, 2, 2), np.nan)}, r'values in \[nan, nan\]'),
        (
            {'image': np.full((4, 2, 2), 900, np.uint16)},
            r'uint16 images have values in \[900, 900\]',
        ),
        ({'image': np.full((4, 2, 2), -1)}, r'values in \[-1, -1\]'),
        (
            {'image': np.zeros((4, 2), np.uint8)},
            r'images have shape \[4, 2\]; expected \[N, H, W\]',
        ),
        ({'image': np.zeros((4, 2, 2, 7), np.uint8)}, r'shape \[4, 2, 2, 7\]'),
        ({'image': np.array([['a'], ['b']])[:, None]}, 'dtype <U1; expected uint8 or floats'),
        (
            {'image': np.array([None] * 4)},
            r"can't be read as .npz \(Object arrays cannot be loaded",
        ),
    ],
)
def test_bad_arrays(write, arrays, message):
    good = {'image': images(4, 2, 2), 'label': np.arange(4) % 2}
    with pytest.raises(ValueError, match=message):
        load(write(**(good | arrays)))


def test_feature_vectors_stay_as_they_are(write):
    vectors = np.random.RandomState(0).randn(6, 5)
    source = load(write(train_x=vectors, train_y=np.arange(6) % 2))
    assert (source.image, source.dtype) == ((5,), np.float32)
    np.testing.assert_array_equal(sources.arrays(source), vectors.astype(np.float32))
    vectors[4, 2] = np.inf
    with pytest.raises(ValueError, match='row 4 has features that are not finite'):
        load(write(train_x=vectors, train_y=np.arange(6) % 2))


def test_bad_label_names_its_split(write):
    good = {'train_image': images(4, 2, 2), 'train_label': np.arange(4) % 2}
    path = write(**good, test_image=images(2, 2, 2), test_label=np.array([0, -1]))
    with pytest.raises(ValueError, match=r'set.npz \(test\): row 1 has the label -1'):
        load(path)


def test_other_arrays_are_listed(write):
    with pytest.raises(
        ValueError, match=r'expected the arrays image and label, .* pics \[4, 2, 2\]'
    ):
        load(write(pics=images(4, 2, 2), label=np.arange(4)))


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(ValueError, match=r'none.npz: there is no such file; expected an .npz'):
        load(tmp_path / 'none.npz')
    (tmp_path / 'bad.npz').write_text('not a zip')
    with pytest.raises(ValueError, match=r"bad.npz: can't be read as .npz .* np.savez"):
        load(tmp_path / 'bad.npz')
