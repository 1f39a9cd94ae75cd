"""Handwritten digits that stand beside MNIST in domain adaptation: USPS and MNIST-M."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from tljax.data.builders import files

_LIBSVM = 'https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass/'
USPS = {
    'train': files.Remote(f'{_LIBSVM}usps.bz2', 'usps.bz2', 'ec16c51db3855ca6c91edd34d0e9b197'),
    'test': files.Remote(f'{_LIBSVM}usps.t.bz2', 'usps.t.bz2', '8ea070ee2aca1ac39742fdd1ef5ed118'),
}
MNIST_M = files.Remote(
    'https://cornell.box.com/shared/static/jado7quprg6hzzdubvwzh9umr75damwi',
    'mnist_m.tar.gz',
    '859df31c91afe82e80e5012ba928f279',
)


class Usps(tfds.core.GeneratorBasedBuilder):
    """USPS: 16x16 grey digits of postal codes, 7,291 for training and 2,007 for testing."""

    VERSION = tfds.core.Version('1.0.0')
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'usps.h5 with train/data [N, 256] in [0, 1], train/target [N], test/data and test/target; '
        f'or usps.bz2 and usps.t.bz2 from {_LIBSVM}, which are downloaded where there is neither'
    )

    def _info(self):
        return digits_info(
            self,
            (16, 16, 1),
            'https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass.html#usps',
            'J. J. Hull, A database for handwritten text recognition research, TPAMI 16(5), 1994',
        )

    def _split_generators(self, dl_manager):
        folder = files.manual_dir(dl_manager)
        own = folder / 'usps.h5' if folder else None
        if own and own.is_file():
            tables = {split: _from_h5(own, split) for split in USPS}
        else:
            tables = {split: _from_libsvm(files.fetch(dl_manager, f)) for split, f in USPS.items()}
        return {split: self._generate_examples(*table) for split, table in tables.items()}

    def _generate_examples(self, images, labels):
        for row, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield row, {'image': Image.fromarray(image), 'label': int(label)}


def digits_info(builder, shape: tuple, homepage: str, citation: str) -> tfds.core.DatasetInfo:
    """The info of a set of digit images of this shape."""
    return tfds.core.DatasetInfo(
        builder=builder,
        features=tfds.features.FeaturesDict(
            {
                'image': tfds.features.Image(shape=shape),
                'label': tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
            }
        ),
        supervised_keys=('image', 'label'),
        homepage=homepage,
        citation=citation,
    )


def _from_h5(path: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        import h5py
    except ImportError:
        raise ValueError(
            f"reading {path} needs h5py: pip install 'tljax[h5]', or put usps.bz2 and usps.t.bz2 "
            'in its place'
        ) from None
    try:
        with h5py.File(path) as file:
            data, target = file[f'{split}/data'][()], file[f'{split}/target'][()]
    except (OSError, KeyError) as error:
        raise ValueError(
            f'{path}: expected the HDF5 arrays {split}/data and {split}/target ({error})'
        ) from error
    return _checked(f'{path} ({split})', data, target)


def _from_libsvm(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Of lines 'label index:value ...', with label = digit + 1 and values in [-1, 1]."""
    from sklearn.datasets import load_svmlight_file

    data, target = load_svmlight_file(str(path), n_features=256)
    return _checked(str(path), (data.toarray() + 1) / 2, target.astype(np.int64) - 1)


def _checked(where: str, data: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of 256 values in [0, 1] as uint8 [N, 16, 16], and the labels [N]."""
    if data.ndim != 2 or data.shape[1] != 256 or target.shape != data.shape[:1]:
        raise ValueError(
            f'{where}: has data {list(data.shape)} and targets {list(target.shape)}; expected '
            '[N, 256] and [N]'
        )
    low, high = data.min(), data.max()
    if not (low >= 0 and high <= 1):
        raise ValueError(f'{where}: has values in [{low:g}, {high:g}]; expected [0, 1]')
    if target.dtype.kind not in 'iu' or target.min() < 0 or target.max() > 9:
        raise ValueError(f'{where}: has other labels than the digits 0 to 9')
    return np.round(data.reshape(-1, 16, 16) * 255).astype(np.uint8), target


class MnistM(tfds.core.GeneratorBasedBuilder):
    """MNIST-M: MNIST digits blended with patches of colour photographs."""

    VERSION = tfds.core.Version('1.0.0')
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name='published')]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'the images and labels as published, mnist_m_train/00000000.png with '
        'mnist_m_train_labels.txt of lines "00000000.png 5", and the same for test: as '
        'mnist_m.tar.gz, unpacked, or as train.zip and train_labels.txt, test.zip and '
        f'test_labels.txt; mnist_m.tar.gz is downloaded from {MNIST_M.url} where there are none'
    )

    def _info(self):
        return digits_info(
            self,
            (32, 32, 3),
            'http://yaroslav.ganin.net',
            'Y. Ganin et al., Domain-adversarial training of neural networks, JMLR 17, 2016',
        )

    def _split_generators(self, dl_manager):
        folder = files.manual_dir(dl_manager)
        if folder is None or not any(folder.rglob('*train_labels.txt')):
            folder = files.fetch(dl_manager, MNIST_M)
        return {split: self._generate_examples(folder, split) for split in ('train', 'test')}

    def _generate_examples(self, folder: Path, split: str):
        labels = _labels(folder, split)
        for name, image in _pngs(folder, split):
            if name in labels:
                yield name, {'image': image, 'label': labels.pop(name)}
        if labels:
            raise ValueError(
                f'{folder}: lacks {len(labels)} images that the labels of {split!r} name, such as '
                f'{next(iter(labels))}'
            )


def _labels(folder: Path, split: str) -> dict[str, int]:
    """File name -> digit."""
    for path, read in files.members(folder):
        if path.endswith(f'{split}_labels.txt'):
            rows = [line.split() for line in read().decode().splitlines() if line.strip()]
            if any(len(row) != 2 or row[1] not in '0123456789' for row in rows):
                raise ValueError(f'{folder}/{path}: expected lines such as "00000000.png 5"')
            return {name: int(label) for name, label in rows}
    raise ValueError(f'{folder}: has no {split}_labels.txt')


def _pngs(folder: Path, split: str) -> Iterator[tuple[str, Image.Image]]:
    inner = folder / f'{split}.zip'
    for path, read in files.members(inner if inner.is_file() else folder):
        if path.endswith('.png') and Path(path).parent.name.endswith(split):
            yield Path(path).name, read()
