import contextlib
import io
import pickle
import sys

import numpy as np
import pytest

from configs import one_shot
from launch import prepare
from tests.data import toys
from tljax import config as configs
from tljax.data import sources, tfds
from tljax.prepare import prepare as assemble
from tljax.types import Task

TOYS = ('colours', 'unlabelled', 'captions', 'faces', 'tasks', 'attributes')


@pytest.fixture(scope='module')
def toy_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp('tfds')
    with contextlib.redirect_stderr(io.StringIO()):
        for name in TOYS:
            prepare.prepare(f'toy_{name}', str(folder))
    return str(folder)


@pytest.mark.parametrize('name', ['mnist', 'fashion_mnist'])
def test_real_sets(data_root, name):
    train, test = (
        sources.load(f'tfds:{name}', split, data_dir=str(data_root / 'tfds'))
        for split in ('train', 'test')
    )
    assert np.bincount(test.labels).tolist() == (
        [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009] if name == 'mnist' else [1000] * 10
    )
    assert len(train.labels) == 60000
    assert train.image == (28, 28, 1)
    trousers = train.classes[1]
    assert trousers == ('1' if name == 'mnist' else 'Trouser')
    assert 'tensorflow' not in sys.modules


def test_same_images_as_tfds_decodes(data_root):
    import tensorflow_datasets

    folder = str(data_root / 'tfds')
    expected = tensorflow_datasets.data_source('mnist', split='test[50:70]', data_dir=folder)
    source = sources.load('tfds:mnist', 'test[50:70]', data_dir=folder)
    for row, example in enumerate(expected):
        np.testing.assert_array_equal(source.fetch(row), example['image'])
        assert source.labels[row] == example['label']


def test_own_set_of_any_feature_names(toy_dir):
    source = sources.load('tfds:toy_colours', data_dir=toy_dir)
    assert source.classes == ('red', 'green', 'blue')
    assert source.image == (4, 6, 3)
    rows = [source.fetch(row)[0, 0, 0] for row in range(12)]
    assert sorted(rows) == list(range(12))  # TFDS shuffled them when it prepared the set
    assert [row % 3 for row in rows] == source.labels.tolist()
    validation = sources.load('tfds:toy_colours:1.0.0', 'val[:50%]', data_dir=toy_dir, size=2)
    assert sources.arrays(validation).shape == (3, 2, 2, 3)


def test_labels_that_are_texts_are_classes(toy_dir):
    for _ in range(2):  # the second reads the names that the first has written
        source = sources.load('tfds:toy_faces', data_dir=toy_dir)
        people = {f'Person_{row % 12}' for row in range(30)}
        assert source.classes == tuple(sorted(people))
        for at, label in enumerate(source.labels):
            row = int(source.fetch(at)[0, 0, 0])
            assert source.classes[label] == f'Person_{row % 12}'


def test_people_of_such_a_set_are_told_apart_from_one_image(toy_dir, monkeypatch):
    """As configs/one_shot.py:tfds:lfw would have it: no person of the test was trained on."""
    monkeypatch.setenv('TFDS_DATA_DIR', toy_dir)
    whole = configs.checked(one_shot.get_config('tfds:toy_faces,prototypical'))
    ready = assemble(configs.merged(whole, whole.runs.prototypical))
    (trained,) = (set(stream.source.classes) for stream in ready.streams.values())
    kept = {name: set(stream.source.classes) for name, stream in ready.held.items()}
    assert set(kept) == {'test', 'pairs'}
    assert all(len(names) == 2 and not names & trained for names in kept.values())
    assert len(trained) == 10


@pytest.fixture
def large(monkeypatch):
    """The toys as if they were too large to keep in memory."""
    monkeypatch.setattr(tfds, '_KEEP_BYTES', 100)
    monkeypatch.setattr(tfds, '_CHUNK', 4)


def test_records_that_are_too_many_to_keep_are_read_one_by_one(toy_dir, request):
    kept = sources.load('tfds:toy_colours', 'train[3:9]', data_dir=toy_dir)
    request.getfixturevalue('large')
    read = sources.load('tfds:toy_colours', 'train[3:9]', data_dir=toy_dir)
    np.testing.assert_array_equal(kept.labels, read.labels)
    np.testing.assert_array_equal(sources.arrays(kept), sources.arrays(read))
    again = pickle.loads(pickle.dumps(read))
    np.testing.assert_array_equal(again.fetch(2), read.fetch(2))


@pytest.mark.parametrize('size', ['kept', 'large'])
def test_columns_of_several_kinds_are_tasks(toy_dir, size, request):
    if size == 'large':
        request.getfixturevalue('large')
    tasks = ('label', 'tags', 'size')
    source = sources.load('tfds:toy_tasks', 'train[2:9]', data_dir=toy_dir, tasks=tasks)
    assert [task.kind for task in source.tasks.values()] == [
        'classification',
        'multilabel',
        'regression',
    ]
    assert source.tasks['tags'].classes == ('a', 'b', 'c')
    assert source.targets['tags'].dtype == np.int32
    for at in range(7):
        row = int(source.fetch(at)[0, 0, 0])
        assert source.targets['label'][at] == row % 2
        assert source.targets['tags'][at].tolist() == [row >> i & 1 for i in range(3)]
        np.testing.assert_array_equal(source.targets['size'][at], [row / 4])
    with pytest.raises(ValueError, match="no task 'count'"):
        sources.load('tfds:toy_tasks', data_dir=toy_dir, tasks=('count',))


def test_a_dict_of_flags_is_a_multilabel_task(toy_dir):
    source = sources.load('tfds:toy_attributes', data_dir=toy_dir, tasks=('attributes',))
    assert source.tasks['attributes'] == Task('multilabel', ('Bald', 'Young'))
    for at in range(12):
        row = int(source.fetch(at)[0, 0, 0])
        assert source.targets['attributes'][at].tolist() == [row % 2, row > 5]
    with pytest.raises(ValueError, match='has no classes, but the tasks attributes: name some as'):
        sources.load('tfds:toy_attributes', data_dir=toy_dir)


def test_labels_of_a_large_split_are_read_once(tmp_path, large):
    prepare.prepare('toy_colours', str(tmp_path))
    load = lambda split: sources.load('tfds:toy_colours', split, data_dir=str(tmp_path))
    first = load('train')
    assert [p.name for p in tmp_path.rglob('*.npy')] == ['.train.colour.npy']
    again, some = load('train'), load('train[4:7]')
    np.testing.assert_array_equal(first.labels, again.labels)
    np.testing.assert_array_equal(first.labels[4:7], some.labels)
    np.testing.assert_array_equal(first.fetch(5), some.fetch(1))


def test_data_dir_by_environment(toy_dir, monkeypatch):
    monkeypatch.setenv('TFDS_DATA_DIR', toy_dir)
    assert len(sources.load('tfds:toy_colours').labels) == 12


def test_not_prepared_says_how(toy_dir):
    with pytest.raises(ValueError, match='tfds:toy_colors is not prepared in') as told:
        sources.load('tfds:toy_colors', data_dir=toy_dir)
    message = str(told.value)
    assert f'python launch/prepare.py toy_colors --data_dir {toy_dir}' in message
    assert "did you mean 'toy_colours'" in message
    assert "pip install -e '.[prepare]'" in message


def test_version_not_prepared(toy_dir):
    with pytest.raises(ValueError, match=r'tfds:toy_colours:2.0.0 is not prepared in'):
        sources.load('tfds:toy_colours:2.0.0', data_dir=toy_dir)


def test_nothing_prepared_at_all(tmp_path):
    with pytest.raises(ValueError, match='is prepared there, none are'):
        sources.load('tfds:mnist', data_dir=str(tmp_path))


def test_no_image_classification_set_says_what_there_is(toy_dir):
    with pytest.raises(ValueError, match=r'toy_captions is not an image-.*, found .*caption: Text'):
        sources.load('tfds:toy_captions', data_dir=toy_dir)


def test_unlabelled_split(toy_dir):
    with pytest.raises(ValueError, match=r"row \d+ of split 'train' has label -1, .* unlabelled"):
        sources.load('tfds:toy_unlabelled', data_dir=toy_dir)


def test_unknown_split_lists_those_there_are(toy_dir):
    with pytest.raises(ValueError, match=r"no split 'test'; there are: train \(12 rows\), validat"):
        sources.load('tfds:toy_colours', 'test', data_dir=toy_dir)


def test_newest_version_and_configurations(tmp_path):
    for folder in ('a/1.2.0', 'a/1.10.0', 'b/x/1.0.0', 'c/x/1.0.0', 'c/y/1.0.0'):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / 'dataset_info.json').touch()
    assert tfds.find('a', [tmp_path]).name == '1.10.0'
    assert tfds.find('a:1.2.0', [tmp_path]).name == '1.2.0'
    assert (
        tfds.find('b', [tmp_path]) == tfds.find('b/x', [tmp_path]) == tmp_path / 'b' / 'x' / '1.0.0'
    )
    with pytest.raises(
        ValueError, match='several configurations; name one of them: tfds:c/x, tfds:c'
    ):
        tfds.find('c', [tmp_path])


def test_toys_know_their_colours():
    assert toys.picture(4).getpixel((1, 1)) == (0, 255, 0)
