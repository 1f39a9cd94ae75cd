"""USPS, MNIST-M, PACS and Office from small files of their official forms."""

import bz2
import hashlib
import zipfile

import numpy as np
import pytest
from PIL import Image

from launch.prepare import prepare
from tests.data import toys
from tljax.data import sources
from tljax.data.builders import blend, digits

R = np.random.RandomState(0)
LABELS = np.array([3, 0, 9, 3])
GREY = R.randint(0, 256, (4, 16, 16)).astype(np.uint8)


def load(name, split, folder, **options):
    return sources.load(f'tfds:{name}', split, data_dir=str(folder), **options)


def png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def usps(folder, digit=1):
    """usps.bz2 and usps.t.bz2 of the same digits."""
    folder.mkdir()
    values = GREY.reshape(4, 256) / 255 * 2 - 1
    for name in ('usps.bz2', 'usps.t.bz2'):
        with bz2.open(folder / name, 'wt') as file:
            for label, row in zip(LABELS, values, strict=True):
                pairs = ' '.join(f'{i}:{value:.6f}' for i, value in enumerate(row, 1))
                file.write(f'{label + digit} {pairs}\n')
    return str(folder)


def test_usps_of_libsvm(tmp_path, monkeypatch):
    raw = usps(tmp_path / 'raw')
    with pytest.raises(RuntimeError, match=r'has MD5 \w+, but usps.bz2 of http'):
        prepare('usps', str(tmp_path), raw)
    trusted = {split: remote._replace(md5='') for split, remote in digits.USPS.items()}
    monkeypatch.setattr(digits, 'USPS', trusted)
    prepare('usps', str(tmp_path), raw)
    for split in ('train', 'test'):
        check(load('usps', split, tmp_path), GREY[..., None], LABELS)
    wrong = usps(tmp_path / 'wrong', digit=0)  # 0 to 9 as they are, not plus 1
    with pytest.raises(RuntimeError, match='has other labels than the digits 0 to 9'):
        prepare('usps', str(tmp_path / 'other'), wrong)


def test_usps_of_hdf5(tmp_path):
    h5py = pytest.importorskip('h5py')
    (tmp_path / 'raw').mkdir()
    with h5py.File(tmp_path / 'raw/usps.h5', 'w') as file:
        for split in ('train', 'test'):
            file[f'{split}/data'] = GREY.reshape(4, 256) / 255
            file[f'{split}/target'] = LABELS
    prepare('usps', str(tmp_path), str(tmp_path / 'raw'))
    check(load('usps', 'test', tmp_path), GREY[..., None], LABELS)


def check(source, images, labels):
    """The same images with their labels, in any order, for TFDS shuffles what it writes."""
    found = sources.arrays(source)
    rows = [int(np.flatnonzero((found == image).all((1, 2, 3)))[0]) for image in images]
    assert sorted(rows) == list(range(len(found)))
    assert source.labels[rows].tolist() == list(labels)


def published(folder):
    """mnist_m_train/00000000.png ..., and the same of test, with their tables."""
    images = R.randint(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    for split in ('train', 'test'):
        names = [f'{row:08d}.png' for row in range(4)]
        for name, image in zip(names, images, strict=True):
            png(folder / f'mnist_m_{split}' / name, image)
        table = [f'{name} {label}' for name, label in zip(names, LABELS, strict=True)]
        (folder / f'mnist_m_{split}_labels.txt').write_text('\n'.join(table))
    return images


def test_mnist_m_as_published(tmp_path):
    images = published(tmp_path / 'raw')
    prepare('mnist_m/published', str(tmp_path), str(tmp_path / 'raw'))
    for split in ('train', 'test'):
        check(load('mnist_m/published', split, tmp_path), images, LABELS)
    (tmp_path / 'raw/mnist_m_test/00000002.png').unlink()
    with pytest.raises(RuntimeError, match=r'lacks 1 images that test_labels\.txt names, such'):
        prepare('mnist_m/published', str(tmp_path / 'other'), str(tmp_path / 'raw'))


def test_mnist_m_made_of_photographs_and_of_textures(tmp_path):
    toys.prepared(toys.Mnist, tmp_path)
    mnist = load('mnist', 'test', tmp_path)
    photo = np.broadcast_to(np.uint8([200, 30, 90]), (40, 50, 3))
    png(tmp_path / 'raw/photo.png', photo)
    png(tmp_path / 'raw/small.png', photo[:31])  # of which no patch can be cut
    prepare('mnist_m/generated', str(tmp_path), str(tmp_path / 'raw'))
    prepare('mnist_m/textures', str(tmp_path))
    strokes = [mnist.fetch(row)[..., 0] for row in range(len(mnist.labels))]
    for name, patches in (
        ('generated', [photo[:32, :32]] * len(strokes)),
        ('textures', blend.patches('test', len(strokes))),
    ):
        pairs = zip(strokes, patches, strict=True)
        images = [blend.blend(digit, patch) for digit, patch in pairs]
        check(load(f'mnist_m/{name}', 'test', tmp_path), images, mnist.labels)


def test_a_digit_inverts_its_background():
    digit = np.zeros((28, 28), np.uint8)
    digit[5, 6] = 1  # all but black is stroke
    patch = R.randint(0, 256, (32, 32, 3)).astype(np.uint8)
    expected = patch.copy()
    expected[7, 8] = 255 - patch[7, 8]
    np.testing.assert_array_equal(blend.blend(digit, patch), expected)


@pytest.mark.parametrize(
    ('split', 'photos', 'digest'),
    [
        ('train', (), '4d4339c07856b0eb2a5f354d21b921b0a151de64c871e38ce54a1833b9e8e285'),
        ('test', (), '8558f0bc7b03686e1e43b088e45329abbd875b46a501fcda6a9495efe727907d'),
        (
            'train',
            (np.arange(40 * 50 * 3).reshape(40, 50, 3) % 251,),
            '51aab499cf38bff994ac1d089b33f3dbb3096c4b2ddaf776adde94608ea46eed',
        ),
    ],
)
def test_the_first_images_are_the_same_on_every_machine(split, photos, digest):
    digit = np.eye(28, dtype=np.uint8)
    photos = [photo.astype(np.uint8) for photo in photos]
    images = [blend.blend(digit, patch) for patch in blend.patches(split, 5, photos)]
    assert hashlib.sha256(np.stack(images).tobytes()).hexdigest() == digest


def tree(folder, classes: int, count: int = 5):
    """`count` images in each of so many class folders, all different."""
    for label in range(classes):
        for row in range(count):
            colour = np.uint8([label, row, 7])
            png(folder / f'class{label:02d}' / f'{row}.png', np.broadcast_to(colour, (3, 4, 3)))


@pytest.mark.parametrize(
    ('name', 'folder', 'classes'),
    [
        ('pacs/art_painting', 'pacs/art_painting', 7),
        ('office31/amazon', 'amazon/images', 31),
        ('office_home/real_world', 'OfficeHome/Real World', 65),
    ],
)
def test_domains_of_class_folders(name, folder, classes, tmp_path):
    tree(tmp_path / 'raw' / folder, classes)
    tree(tmp_path / 'raw/elsewhere', 2)  # no domain of the set
    prepare(name, str(tmp_path), str(tmp_path / 'raw'))
    for split, each in (('train', 4), ('test', 1)):
        found = load(name, split, tmp_path)
        assert found.classes == tuple(f'class{label:02d}' for label in range(classes))
        assert np.bincount(found.labels).tolist() == [each] * classes
        for row, label in enumerate(found.labels[:5]):
            assert found.fetch(row)[0, 0, 0] == label


def test_a_domain_in_an_archive_and_one_that_lacks_a_class(tmp_path):
    tree(tmp_path / 'all/photo', 7)
    (tmp_path / 'raw').mkdir()
    with zipfile.ZipFile(tmp_path / 'raw/pacs.zip', 'w') as archive:
        for path in sorted((tmp_path / 'all').rglob('*.png')):
            archive.write(path, path.relative_to(tmp_path / 'all'))
    prepare('pacs/photo', str(tmp_path), str(tmp_path / 'raw'))
    assert len(load('pacs/photo', 'train', tmp_path).labels) == 28
    tree(tmp_path / 'few/sketch', 6)
    with pytest.raises(RuntimeError, match=r"expected 7 class folders of .* 'sketch', found 6"):
        prepare('pacs/sketch', str(tmp_path / 'other'), str(tmp_path / 'few'))
