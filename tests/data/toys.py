"""Small TFDS builders of our own, which need neither a network nor TensorFlow."""

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from tljax.data.builders.digits import digits_info

COLOURS = {'red': (255, 0, 0), 'green': (0, 255, 0), 'blue': (0, 0, 255)}


def picture(row: int, size: tuple[int, int] = (6, 4)) -> Image.Image:
    """One colour all over, but for a pixel that tells the row."""
    image = Image.new('RGB', size, list(COLOURS.values())[row % 3])
    image.putpixel((0, 0), (row, row, row))
    return image


class ToyColours(tfds.core.GeneratorBasedBuilder):
    """Twelve training and six validation images; the label is the colour."""

    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                'id': tfds.features.Text(),
                'picture': tfds.features.Image(shape=(None, None, 3)),
                'colour': tfds.features.ClassLabel(names=list(COLOURS)),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples(12), 'validation': self._generate_examples(6)}

    def _generate_examples(self, count):
        for row in range(count):
            yield row, {'id': str(row), 'picture': picture(row), 'colour': row % 3}


class ToyUnlabelled(ToyColours):
    """The same with a test split without labels."""

    VERSION = tfds.core.Version('1.0.0')

    def _generate_examples(self, count):
        for row in range(count):
            yield row, {'id': str(row), 'picture': picture(row), 'colour': -1 if row == 4 else 0}


class ToyCaptions(tfds.core.GeneratorBasedBuilder):
    """Images with a text and no class."""

    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        features = {'image': tfds.features.Image(shape=(4, 6, 3)), 'caption': tfds.features.Text()}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples()}

    def _generate_examples(self):
        for row in range(3):
            yield row, {'image': picture(row), 'caption': f'caption {row}'}


class ToyFaces(tfds.core.GeneratorBasedBuilder):
    """People named by a text, two or three images of each, as the set 'lfw' has them."""

    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        features = {'label': tfds.features.Text(), 'image': tfds.features.Image(shape=(4, 6, 3))}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), supervised_keys=('label', 'image')
        )

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples()}

    def _generate_examples(self):
        for row in range(30):
            yield row, {'label': f'Person_{row % 12}', 'image': picture(row)}


class ToyVillage(ToyColours):
    """Leaves by host and disease, all in one split, as the set 'plant_village' has them."""

    VERSION = tfds.core.Version('1.0.0')
    NAMES = ('Apple___healthy', 'Apple___scab', 'Grape___healthy')

    def _info(self):
        features = {
            'image': tfds.features.Image(shape=(None, None, 3)),
            'image/filename': tfds.features.Text(),
            'label': tfds.features.ClassLabel(names=list(self.NAMES)),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples(40)}

    def _generate_examples(self, count):
        for row in range(count):
            yield row, {'image': picture(row), 'image/filename': f'{row}.jpg', 'label': row % 3}


class ToyTasks(ToyColours):
    """A class, several tags and a number of each image."""

    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        features = {
            'image': tfds.features.Image(shape=(4, 6, 3)),
            'label': tfds.features.ClassLabel(names=['even', 'odd']),
            'tags': tfds.features.Sequence(tfds.features.ClassLabel(names=['a', 'b', 'c'])),
            'size': tfds.features.Scalar(np.float32),
            'count': tfds.features.Scalar(np.int64),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _generate_examples(self, count):
        for row in range(count):
            tags = [tag for i, tag in enumerate('abc') if row >> i & 1]
            numbers = {'label': row % 2, 'tags': tags, 'size': row / 4, 'count': row}
            yield row, {'image': picture(row), **numbers}


class ToyAttributes(ToyColours):
    """Flags of each image and no class, as the set 'celeb_a' has them."""

    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        features = {
            'image': tfds.features.Image(shape=(4, 6, 3)),
            'landmarks': {'left_x': np.int64, 'left_y': np.int64},
            'attributes': {'Bald': np.bool_, 'Young': np.bool_},
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _generate_examples(self, count):
        for row in range(count):
            marks, flags = {'left_x': 1, 'left_y': row}, {'Bald': row % 2 > 0, 'Young': row > 5}
            yield row, {'image': picture(row), 'landmarks': marks, 'attributes': flags}


class ToyOnline(ToyColours):
    """Wants a file from the network, in vain."""

    VERSION = tfds.core.Version('1.0.0')

    def _split_generators(self, dl_manager):
        raise ConnectionError('no route to host files.example')


class ToyTensorflow(ToyColours):
    """Encodes arrays, which only TensorFlow does."""

    VERSION = tfds.core.Version('1.0.0')

    def _generate_examples(self, count):
        for row in range(count):
            yield row, {'id': '', 'picture': np.asarray(picture(row)), 'colour': 0}


class Digits(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Strokes at random, brighter from class to class; a subclass has the name of a real set."""

    VERSION = tfds.core.Version('1.0.0')
    SHAPE = (28, 28, 1)
    COUNT = 40  # of each split

    def _info(self):
        return digits_info(self, self.SHAPE, 'https://files.example', 'nobody')

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in ('train', 'test')}

    def _generate_examples(self, split):
        random = np.random.RandomState(len(split))
        for row in range(self.COUNT):
            strokes = (random.rand(*self.SHAPE) < 0.3) * (50 + 20 * (row % 10))
            image = Image.fromarray(strokes.astype(np.uint8).squeeze())
            yield row, {'image': image, 'label': row % 10}


class Mnist(Digits, skip_registration=True):
    """Grey."""


class SvhnCropped(Digits, skip_registration=True):
    """In colour."""

    SHAPE = (32, 32, 3)


def prepared(builder, folder) -> None:
    """Writes a set of one of these classes."""
    builder(data_dir=str(folder), file_format='array_record').download_and_prepare()
