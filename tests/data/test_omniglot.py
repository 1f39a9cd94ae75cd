"""Omniglot from zips of the official form, with a few characters of a few drawers."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from launch.prepare import prepare
from tljax.data import sources
from tljax.data.builders import files, omniglot

R = np.random.RandomState(0)
DRAWERS = 3


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(R.rand(105, 105) > 0.1).save(file, 'png')
    return file.getvalue()


@pytest.fixture
def raw(tmp_path):
    """Two alphabets of two and three characters, one run of 2-way classification."""
    folder, drawn = tmp_path / 'raw', {}
    folder.mkdir()
    number = 0
    for name, alphabet, count in (('background', 'Greek', 2), ('evaluation', 'ULOG', 3)):
        with zipfile.ZipFile(folder / f'images_{name}.zip', 'w') as archive:
            for character in range(1, count + 1):
                number += 1
                for drawer in range(1, DRAWERS + 1):
                    drawn[alphabet, character, drawer] = png()
                    inner = f'character{character:02d}/{number:04d}_{drawer:02d}.png'
                    path = f'images_{name}/{alphabet}/{inner}'
                    archive.writestr(path, drawn[alphabet, character, drawer])
    with zipfile.ZipFile(folder / 'all_runs.zip', 'w') as archive:
        for k, character in enumerate((3, 1), 1):
            path = f'run01/training/class{k:02d}.png'
            archive.writestr(path, drawn['ULOG', character, 1])
        for k, character in enumerate((1, 3), 1):
            archive.writestr(f'run01/test/item{k:02d}.png', drawn['ULOG', character, 2])
        answers = [(1, 2), (2, 1)]
        lines = [f'run01/test/item{a:02d}.png run01/training/class{b:02d}.png' for a, b in answers]
        archive.writestr('run01/class_labels.txt', '\n'.join(lines))
    return folder, drawn


def test_splits_classes_and_pixels(raw, tmp_path):
    folder, drawn = raw
    data = str(tmp_path / 'tfds')
    prepare('omniglot_characters/28', data, str(folder))
    load = lambda split: sources.load('tfds:omniglot_characters/28', split, data_dir=data)
    old, new = load('background'), load('evaluation')
    names = [f'Greek/character0{k}' for k in (1, 2)] + [f'ULOG/character0{k}' for k in (1, 2, 3)]
    assert list(old.classes) == names
    np.testing.assert_array_equal(old.labels, np.repeat([0, 1], DRAWERS))
    np.testing.assert_array_equal(new.labels, np.repeat([2, 3, 4], DRAWERS))
    pixels = np.asarray(Image.open(io.BytesIO(drawn['ULOG', 2, 3])).convert('L'))
    ink = Image.fromarray(255 - pixels).resize((28, 28), Image.Resampling.BOX)
    np.testing.assert_array_equal(new.fetch(5)[..., 0], np.asarray(ink))
    assert sources.present(new).classes == new.classes[2:]
    train, test = (set(load(split).labels) for split in ('train', 'test'))
    assert (train | test, train & test, len(train)) == ({0, 1, 2, 3, 4}, set(), 3)
    np.testing.assert_array_equal(load('runs').labels, [4, 2, 2, 4])


def test_a_list_makes_the_split_between_alphabets(raw, tmp_path):
    folder, _ = raw
    data = str(tmp_path / 'tfds')
    lines = [
        f'{name}/rot{turn}'
        for name in ('Greek/character02', 'ULOG/character01')
        for turn in ('000', '090')
    ]
    (folder / 'test.txt').write_text('\n'.join(lines))
    prepare('omniglot_characters/28', data, str(folder))
    load = lambda split: sources.load('tfds:omniglot_characters/28', split, data_dir=data)
    assert set(load('test').labels) == {1, 2}
    assert set(load('train').labels) == {0, 3, 4}


@pytest.mark.parametrize(
    ('listed', 'message'),
    [
        ('Greek/character1', r"there is no character 'Greek/character1'; .* 'Greek/character01'"),
        ('', 'names 0 of 1 characters'),
        ('Greek/character01', 'names 1 of 1 characters'),
    ],
)
def test_bad_lists_are_refused(listed, message, tmp_path):
    (tmp_path / 'test.txt').write_text(listed)
    with pytest.raises(ValueError, match=message):
        omniglot.tested(['Greek/character01'], tmp_path)


def test_what_is_not_there_is_downloaded_and_checked(raw, tmp_path):
    """Up to the network: the download is another archive of the same images."""
    folder, _ = raw

    class Downloads:
        manual_dir = str(tmp_path / 'empty')

        def download(self, url):
            assert url.startswith('https://raw.githubusercontent.com/brendenlake/omniglot/')
            return str(folder / url.rpartition('/')[2])

    assert files.fetch(Downloads(), omniglot.RUNS) == folder / 'all_runs.zip'
    with pytest.raises(ValueError, match=r'images_background\.zip: has MD5 .* fetch it again'):
        files.fetch(Downloads(), omniglot.SETS['background'], repacked=True)
