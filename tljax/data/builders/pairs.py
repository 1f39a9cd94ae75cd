"""Two items in one image, to be told apart: Multi-MNIST and Multi-Fashion-(and-)MNIST."""

import functools
import hashlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from tljax.data import sources

SIDE, SHIFT = 28, 6  # of an item; how far the second lies to the lower right
_SEED = {'train': 0, 'test': 1}
# Configuration -> the sets of the upper left and of the lower right items.
SETS = {
    'mnist': ('mnist', 'mnist'),
    'fashion': ('fashion_mnist', 'fashion_mnist'),
    'fashion_and_mnist': ('fashion_mnist', 'mnist'),
}
# SHA-256 of examples in order, of each its pixels and labels as bytes: of the published items ...
ITEMS: Mapping[str, Mapping[str, str]] = {
    'mnist': {
        'train': 'fdc72cc6d8a113959e5778dde07a851a4ee319e9cf4687db69031bc6543036ea',
        'test': 'f2e8d390ea1efcaf40f1ea503204daf4e41c0b205028b26fb17c86cefe2ca256',
    },
    'fashion_mnist': {
        'train': '531fd2330e8a09f272c9d287d3d5f80ecec9ef224925a990e4212b35d030c373',
        'test': '96bef2a8d3202a78cae06196a4486f384d78d48c685089550b57eb2e15f408b8',
    },
}
# ... and of the pairs that this file makes of them.
PAIRS: Mapping[str, Mapping[str, str]] = {
    'mnist': {
        'train': '62fcc84953fbf61d693cd8e4efdb689a95039d5527fde9e8dd41cca3444ed864',
        'test': 'ac784a85a84dd2b612e8190209149f92a84ba368036046f81288f8bdc45f42d8',
    },
    'fashion': {
        'train': '8ffd8ba5187e0d77168c7607c59a9ecba650e0a8a6c8659b24c9d86891863cc2',
        'test': 'e411294065cefb7ce88a64a88fd27149fcd232b44ff27a17a86ec3e1545c0364',
    },
    'fashion_and_mnist': {
        'train': '564866ff79c85b36b91928a21a2612dd4ba9fd45faae6a33ea82772e4ff8b739',
        'test': '31986352e356188bb5ce309f0a6680c61490a00f38a99f80beac42e69492a24f',
    },
}


def overlay(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The brighter of two items on a canvas of 36 x 36, which is then reduced to 28 x 28.

    As in the published code of Sener and Koltun 2018, "Multi-task learning as multi-objective
    optimization", arXiv:1810.04650, after Sabour, Frosst and Hinton 2017, arXiv:1710.09829: the
    left item at (0, 0), the right one at (6, 6), the pixel kept that is nearest to the middle.

    Args:
      left: uint8 [28, 28].
      right: uint8 [28, 28].

    Returns:
      uint8 [28, 28].
    """
    canvas = np.zeros((SIDE + 8, SIDE + 8), np.uint8)
    canvas[:SIDE, :SIDE] = left
    inside = slice(SHIFT, SHIFT + SIDE)
    canvas[inside, inside] = np.maximum(canvas[inside, inside], right)
    nearest = ((np.arange(SIDE) + 0.5) * len(canvas) / SIDE).astype(int)
    return canvas[np.ix_(nearest, nearest)]


def partners(split: str, left: int, right: int) -> np.ndarray:
    """For each of `left` items a seeded row of the `right` ones, any of them: int [left]."""
    # RandomState: NumPy promises never to change its numbers.
    return np.random.RandomState(_SEED[split]).randint(right, size=left)


class MultiMnist(tfds.core.GeneratorBasedBuilder):
    """Pairs of MNIST digits or Fashion-MNIST items: 60,000 to train and 10,000 to test."""

    VERSION = tfds.core.Version('1.0.0')
    BUILDER_CONFIGS = tuple(tfds.core.BuilderConfig(name=name) for name in SETS)
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'nothing: the items are those of tfds:mnist and tfds:fashion_mnist in the same data_dir'
    )

    def _info(self):
        names = {'mnist': [str(digit) for digit in range(10)], 'fashion_mnist': _FASHION}
        left, right = SETS[self.builder_config.name]
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    'image': tfds.features.Image(shape=(SIDE, SIDE, 1)),
                    'left': tfds.features.ClassLabel(names=names[left]),
                    'right': tfds.features.ClassLabel(names=names[right]),
                }
            ),
            supervised_keys=('image', 'left'),
            homepage='https://github.com/isl-org/MultiObjectiveOptimization',
            citation='O. Sener and V. Koltun, Multi-task learning as multi-objective optimization, '
            'NeurIPS 2018',
        )

    def _split_generators(self, dl_manager):
        folder, name = Path(self.data_dir).parents[2], self.builder_config.name
        return {
            split: self._generate_examples(functools.partial(_pairs, folder, name, split))
            for split in ('train', 'test')
        }

    def _generate_examples(self, examples):
        yield from examples()


_FASHION = ['T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat', 'Sandal', 'Shirt', 'Sneaker']
_FASHION += ['Bag', 'Ankle boot']


def _pairs(data_dir: Path, config: str, split: str) -> Iterator[tuple[int, dict]]:
    """Pairs of the configuration with their keys.

    Raises:
      RuntimeError: at the end, as `check`.
    """
    left, right = (
        sources.load(f'tfds:{name}', split, size=SIDE, channels=1, data_dir=str(data_dir))
        for name in SETS[config]
    )
    digest = hashlib.sha256()
    for row, other in enumerate(partners(split, len(left.labels), len(right.labels))):
        image = overlay(left.fetch(row)[..., 0], right.fetch(other)[..., 0])
        labels = {'left': int(left.labels[row]), 'right': int(right.labels[other])}
        _add(digest, image, *labels.values())
        yield row, {'image': Image.fromarray(image), **labels}
    check(digest.hexdigest(), config, split, left, right)


def _add(digest, image: np.ndarray, *labels: int) -> None:
    digest.update(np.ascontiguousarray(image).tobytes() + bytes(labels))


def check(found: str, config: str, split: str, *items: sources.Source) -> None:
    """Compares a checksum of pairs with the recorded one, and tells what a difference comes from.

    Args:
      found: SHA-256 of the pairs.
      config: of `SETS`.
      split: 'train' or 'test'.
      *items: what the pairs were made of.

    Warns:
      UserWarning: they were made of other items than the published ones.

    Raises:
      RuntimeError: they were made of the published items, and came out differently.
    """
    if found == PAIRS[config][split]:
        return
    for name, source in zip(SETS[config], items, strict=True):
        digest = hashlib.sha256()
        for row, label in enumerate(source.labels):
            _add(digest, source.fetch(row), int(label))
        if digest.hexdigest() != ITEMS[name][split]:
            warnings.warn(
                f'multi_mnist/{config} ({split}) is not the recorded set: tfds:{name} here holds '
                f'{len(source.labels)} examples that are not those of {name} 3.0.1, or lie in '
                'another order. It can be trained on, but not be compared with other results',
                stacklevel=2,
            )
            return
    raise RuntimeError(
        f'multi_mnist/{config} ({split}) has the checksum {found[:16]}..., but the published items '
        f'give {PAIRS[config][split][:16]}...: this version of NumPy draws or indexes differently, '
        'or the images were damaged on the way'
    )
