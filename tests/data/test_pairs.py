"""Two items in one image: how they lie, and checksums of what comes out."""

import hashlib
import warnings

import numpy as np
import pytest
from PIL import Image

from tljax.data import sources
from tljax.data.builders import pairs


def test_items_are_laid_over_each_other():
    random = np.random.RandomState(0)
    left, right = random.randint(0, 256, (2, 28, 28)).astype(np.uint8)
    canvas = np.zeros((36, 36), np.uint8)
    canvas[:28, :28] = left
    for i in range(28):
        for j in range(28):
            canvas[6 + i, 6 + j] = max(canvas[6 + i, 6 + j], right[i, j])
    wanted = np.asarray(Image.fromarray(canvas).resize((28, 28), Image.NEAREST))
    np.testing.assert_array_equal(pairs.overlay(left, right), wanted)
    rows = pairs.partners('train', 60_000, 60_000)
    assert rows[:4].tolist() == np.random.RandomState(0).randint(60_000, size=60_000)[:4].tolist()


@pytest.fixture
def made(monkeypatch):
    """`made()`: the pairs that noise in place of Fashion-MNIST and MNIST gives."""
    random = np.random.RandomState(0)
    items = {}
    for name, count in (('tfds:fashion_mnist', 7), ('tfds:mnist', 5)):
        images = random.randint(0, 256, (count, 28, 28, 1)).astype(np.uint8)
        labels = np.arange(count).astype(np.int32)
        items[name] = sources.Source(name, (), labels, images.__getitem__, (28, 28, 1))
    monkeypatch.setattr(sources, 'load', lambda name, split, **options: items[name])
    return lambda: list(pairs._pairs('', 'fashion_and_mnist', 'test'))


def checksum(examples) -> str:
    digest = hashlib.sha256()
    for image, *labels in examples:
        digest.update(np.asarray(image).tobytes() + bytes(map(int, labels)))
    return digest.hexdigest()


def record(monkeypatch, table, name, value):
    monkeypatch.setattr(pairs, table, {**getattr(pairs, table), name: {'test': value}})


def test_pairs_of_other_items_are_told(made):
    with pytest.warns(UserWarning, match='tfds:fashion_mnist here holds 7 examples that are not'):
        found = made()
    assert [key for key, _ in found] == list(range(7))


def test_pairs_of_published_items_have_to_be_those_recorded(made, monkeypatch):
    for name in ('fashion_mnist', 'mnist'):
        source = sources.load(f'tfds:{name}', 'test')
        images = map(source.fetch, range(len(source.labels)))
        record(monkeypatch, 'ITEMS', name, checksum(zip(images, source.labels, strict=True)))
    with pytest.raises(RuntimeError, match='but the published items give 31986352e356188b'):
        made()
    record(monkeypatch, 'ITEMS', 'mnist', '')
    with pytest.warns(UserWarning, match='tfds:mnist here holds 5 examples'):
        found = made()
    whole = [(one['image'], one['left'], one['right']) for _, one in found]
    record(monkeypatch, 'PAIRS', 'fashion_and_mnist', checksum(whole))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        made()


@pytest.mark.parametrize('config', pairs.SETS)
def test_published_items_give_the_recorded_pairs(config, data_root):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        found = [key for key, _ in pairs._pairs(data_root / 'tfds', config, 'test')]
    assert found == list(range(10_000))
