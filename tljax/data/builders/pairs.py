"""Two items in one image, to be told apart: Multi-MNIST and Multi-Fashion-(and-)MNIST."""

import functools
from collections.abc import Iterator
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
        folder, names = Path(self.data_dir).parents[2], SETS[self.builder_config.name]
        return {
            split: self._generate_examples(functools.partial(_pairs, folder, names, split))
            for split in ('train', 'test')
        }

    def _generate_examples(self, examples):
        yield from examples()


_FASHION = ['T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat', 'Sandal', 'Shirt', 'Sneaker']
_FASHION += ['Bag', 'Ankle boot']


def _pairs(data_dir: Path, names: tuple[str, str], split: str) -> Iterator[tuple[int, dict]]:
    left, right = (
        sources.load(f'tfds:{name}', split, size=SIDE, channels=1, data_dir=str(data_dir))
        for name in names
    )
    for row, other in enumerate(partners(split, len(left.labels), len(right.labels))):
        image = overlay(left.fetch(row)[..., 0], right.fetch(other)[..., 0])
        labels = {'left': int(left.labels[row]), 'right': int(right.labels[other])}
        yield row, {'image': Image.fromarray(image), **labels}
