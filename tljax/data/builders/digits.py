"""Handwritten digits that stand beside MNIST in domain adaptation: USPS and MNIST-M."""

import functools
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from tljax.data import decode, sources
from tljax.data.builders import blend, files
from tljax.data.folder import is_image

_MOST_PHOTOS = 1000  # they are held in memory; BSDS500 has 500
DIGITS = [str(digit) for digit in range(10)]
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
                'label': tfds.features.ClassLabel(names=DIGITS),
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
            f"reading {path} needs h5py: pip install -e '.[h5]', or put usps.bz2 and usps.t.bz2 "
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
    """MNIST-M: MNIST digits on patches of photographs, the published one or made anew."""

    VERSION = tfds.core.Version('1.0.0')
    BUILDER_CONFIGS = tuple(
        tfds.core.BuilderConfig(name=name) for name in ('published', 'generated', 'textures')
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'for mnist_m/published, the images and labels: mnist_m_train/00000000.png ... and '
        'mnist_m_train_labels.txt with lines such as "00000000.png 5", the same for test, all in '
        'mnist_m.tar.gz, in zip files or unpacked (without a manual_dir, mnist_m.tar.gz is '
        f'downloaded from {MNIST_M.url}); for mnist_m/generated, photographs such as those of '
        'BSDS500 (mnist_m/textures needs none). The digits of the last two are those of '
        'tfds:mnist in the same data_dir'
    )

    def _info(self):
        return digits_info(
            self,
            (blend.SIDE, blend.SIDE, 3),
            'http://yaroslav.ganin.net',
            'Y. Ganin et al., Domain-adversarial training of neural networks, JMLR 17, 2016',
        )

    def _split_generators(self, dl_manager):
        folder, kind = files.manual_dir(dl_manager), self.builder_config.name
        if kind == 'published':
            examples = functools.partial(_published, folder or files.fetch(dl_manager, MNIST_M))
        else:
            if kind == 'generated' and folder is None:
                raise ValueError(
                    'it needs a --manual_dir of photographs; mnist_m/textures does not'
                )
            photos = _photos(folder) if kind == 'generated' else ()
            examples = functools.partial(_generated, Path(self.data_dir).parents[2], photos)
        return {split: self._generate_examples(examples(split)) for split in ('train', 'test')}

    def _generate_examples(self, examples):
        yield from examples


def _published(root: Path, split: str) -> Iterator[tuple[str, dict]]:
    labels = _labels(root, split)
    for path, read in files.members(root):
        name, parent = PurePosixPath(path).name, PurePosixPath(path).parent.name
        if name in labels and parent.endswith(split):
            yield name, {'image': files.image(path, read), 'label': labels.pop(name)}
    if labels:
        raise ValueError(
            f'{root}: lacks {len(labels)} images that {split}_labels.txt names, such as '
            f'{next(iter(labels))}, in a folder whose name ends in {split!r}'
        )


def _generated(data_dir: Path, photos: Sequence, split: str) -> Iterator[tuple[int, dict]]:
    digits = sources.load('tfds:mnist', split, size=28, channels=1, data_dir=str(data_dir))
    for row, patch in enumerate(blend.patches(split, len(digits.labels), photos)):
        image = Image.fromarray(blend.blend(digits.fetch(row)[..., 0], patch))
        yield row, {'image': image, 'label': int(digits.labels[row])}


def _photos(root: Path) -> list[np.ndarray]:
    """The first photographs of a folder or its archives that are large enough, RGB.

    Raises:
      ValueError: there are none, or one does not decode.
    """
    found = (
        decode.from_bytes(read(), path, decode.Pixels(channels=3))
        for path, read in files.members(root)
        if is_image(path)
    )
    large = (photo for photo in found if min(photo.shape[:2]) >= blend.SIDE)
    photos = list(itertools.islice(large, _MOST_PHOTOS))
    if not photos:
        raise ValueError(
            f'{root}: has no image of at least {blend.SIDE} pixels a side; expected photographs'
        )
    return photos


def _labels(root: Path, split: str) -> dict[str, int]:
    """File name -> digit.

    Raises:
      ValueError: there is no such file, or a line in it that is not NAME DIGIT.
    """
    for path, read in files.members(root):
        if path.endswith(f'{split}_labels.txt'):
            rows = [line.split() for line in read().decode().splitlines() if line.strip()]
            for number, row in enumerate(rows, 1):
                if len(row) != 2 or row[1] not in DIGITS:
                    raise ValueError(
                        f'{root}: line {number} of {path} is {" ".join(row)!r}; expected the name '
                        'of an image and a digit'
                    )
            return {name: int(label) for name, label in rows}
    raise ValueError(f'{root}: has no {split}_labels.txt')
