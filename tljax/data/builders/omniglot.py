"""Omniglot: 1,623 handwritten characters of 50 alphabets, each by 20 drawers.

Lake et al., "Human-level concept learning through probabilistic program induction", Science 350,
2015. From the official zips, without TensorFlow.
"""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from tljax.data.builders import files

_PYTHON = 'https://raw.githubusercontent.com/brendenlake/omniglot/master/python/'
SETS = {
    'background': files.Remote(
        f'{_PYTHON}images_background.zip',
        'images_background.zip',
        '68d2efa1b9178cc56df9314c21c6e718',
    ),
    'evaluation': files.Remote(
        f'{_PYTHON}images_evaluation.zip',
        'images_evaluation.zip',
        '6b91aef0f799c5bb55b94e3f2daec811',
    ),
}
# Every image of the runs is looked for among those of the alphabets.
RUNS = files.Remote(f'{_PYTHON}one-shot-classification/all_runs.zip', 'all_runs.zip', '')
TRAINING = 1200  # characters of the split between alphabets, of 1,623
TEST = 'test.txt'  # in a manual_dir: the characters that are to be the split 'test'


class OmniglotCharacters(tfds.core.GeneratorBasedBuilder):
    """Strokes white on black, at 105 pixels or made smaller; classes are 'Alphabet/character01'.

    Splits: 'background' (30 alphabets) and 'evaluation' (20); 'train' and 'test', 1,200 and the
    other 423 characters of all alphabets together, a draw with a fixed seed; and 'runs', the 20
    official runs of 20-way 1-shot classification: of each its 20 training images, class after
    class, then its 20 test images. All keep this order.

    Vinyals et al. 2016, arXiv:1606.04080, whose 1,200 and 423 these numbers are, did not publish
    which characters they took. The lists that Snell et al. 2017 got from them are in their
    repository, prototypical-networks: with its data/omniglot/splits/vinyals/test.txt in the
    manual_dir, its characters are the split 'test'.
    """

    VERSION = tfds.core.Version('1.0.0')
    BUILDER_CONFIGS = tuple(tfds.core.BuilderConfig(name=name) for name in ('28', '105'))
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'images_background.zip, images_evaluation.zip and all_runs.zip of '
        'https://github.com/brendenlake/omniglot (python/ and python/one-shot-classification/), '
        'with the paths images_background/ALPHABET/characterNN/NNNN_NN.png and run01/... in them, '
        'which are downloaded where they are not there; and, for another split between '
        f'alphabets, {TEST} with a line such as Hebrew/character01 for each character to test on'
    )

    def _info(self):
        side = int(self.builder_config.name)
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    'image': tfds.features.Image(shape=(side, side, 1)),
                    'label': tfds.features.ClassLabel(),
                    'alphabet': tfds.features.Text(),
                    'drawer': np.int32,
                }
            ),
            supervised_keys=('image', 'label'),
            homepage='https://github.com/brendenlake/omniglot',
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        fetch = lambda remote: files.fetch(dl_manager, remote, repacked=True)
        sets = {name: list(characters(fetch(remote))) for name, remote in SETS.items()}
        every = sets['background'] + sets['evaluation']
        names = sorted({name for name, *_ in every})
        self.info.features['label'].names = names
        test = tested(names, files.manual_dir(dl_manager))
        between = {
            'train': [one for one in every if one[0] not in test],
            'test': [one for one in every if one[0] in test],
        }
        made = {**sets, **between, 'runs': list(runs(fetch(RUNS), sets['evaluation']))}
        return {split: self._generate_examples(rows) for split, rows in made.items()}

    def _generate_examples(self, rows):
        side = int(self.builder_config.name)
        for row, (name, drawer, data) in enumerate(rows):
            yield (
                row,
                {
                    'image': strokes(data, side),
                    'label': name,
                    'alphabet': name.partition('/')[0],
                    'drawer': drawer,
                },
            )


def tested(names: list[str], folder: Path | None) -> set[str]:
    """The characters of the split 'test': those that a list in the folder names, or a draw.

    Raises:
      ValueError: the list names one that there is not, or none or all of them.
    """
    path = folder / TEST if folder else None
    if path is None or not path.is_file():
        order = np.random.RandomState(0).permutation(len(names))
        return {names[i] for i in order[len(names) * TRAINING // 1623 :]}
    listed = {'/'.join(line.split('/')[:2]) for line in path.read_text().split()}
    if unknown := sorted(listed - set(names)):
        raise ValueError(
            f'{path}: there is no character {unknown[0]!r}; expected such as {names[0]!r}'
        )
    if not 0 < len(listed) < len(names):
        raise ValueError(f'{path}: names {len(listed)} of {len(names)} characters; expected some')
    return listed


def characters(path: Path) -> Iterator[tuple[str, int, bytes]]:
    """Class, drawer (1 to 20) and encoded image of each file below an archive's alphabets.

    Raises:
      ValueError: no image of a character is in it.
    """
    found = False
    for name, read in files.members(path):
        parts = PurePosixPath(name).parts
        if len(parts) >= 3 and name.endswith('.png'):
            found = True
            drawer = int(parts[-1].removesuffix('.png').rpartition('_')[2])
            yield f'{parts[-3]}/{parts[-2]}', drawer, files.image(name, read)
    if not found:
        raise ValueError(f'{path}: has no images such as ALPHABET/character01/0001_01.png')


def runs(path: Path, drawn: list[tuple[str, int, bytes]]) -> Iterator[tuple[str, int, bytes]]:
    """The images of the official runs, which are found again among those of the alphabets.

    Raises:
      ValueError: an image is none of them, or the answers do not agree with that.
    """
    known = {_pixels(data): (name, drawer) for name, drawer, data in drawn}
    images, answers = {}, {}
    for name, read in files.members(path):
        if name.endswith('.png'):
            images[name] = read()
        elif name.endswith('class_labels.txt'):
            answers |= dict(line.split() for line in read().decode().splitlines() if line.strip())
    for name in images:
        if _pixels(images[name]) not in known:
            raise ValueError(f'{path}: {name} is none of the images of images_evaluation.zip')
    label = {name: known[_pixels(data)][0] for name, data in images.items()}
    for test, training in answers.items():
        if label.get(test) != label.get(training):
            raise ValueError(f'{path}: {test} and {training} should be of one character')
    for folder in sorted({name.partition('/')[0] for name in images}):
        for kind in ('training', 'test'):
            for name in sorted(one for one in images if one.startswith(f'{folder}/{kind}/')):
                yield (*known[_pixels(images[name])], images[name])


def strokes(data: bytes, side: int) -> Image.Image:
    """White strokes on black, grey [side, side], each pixel the mean of what it covers."""
    ink = Image.fromarray(255 - np.asarray(Image.open(io.BytesIO(data)).convert('L')))
    if ink.size != (side, side):
        ink = ink.resize((side, side), Image.Resampling.BOX)
    return ink


def _pixels(data: bytes) -> bytes:
    return hashlib.md5(np.asarray(Image.open(io.BytesIO(data)).convert('L')).tobytes()).digest()
