"""Several label columns of one set, wherever they are written."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests import runs
from tljax.data import sources

TASKS = ('label', 'parity', 'ink')


def test_digits_have_related_tasks():
    source = sources.load(
        runs.DIGITS, 'all', tasks=('label', 'parity', 'above_four', 'loops', 'ink')
    )
    digit = source.targets['label']
    np.testing.assert_array_equal(source.targets['parity'], digit % 2)
    np.testing.assert_array_equal(source.targets['above_four'], digit > 4)
    assert set(digit[source.targets['loops'] == 2]) == {8}
    ink = load_digits().images.mean((1, 2))
    found = np.sort(source.targets['ink'][:, 0])
    np.testing.assert_allclose(found, np.sort((ink - ink.mean()) / ink.std()), 1e-4, 1e-5)


def test_labels_are_masked_to_a_share_and_rows_stay_together():
    whole = sources.load(runs.DIGITS, 'train', tasks=TASKS)
    few = sources.load(runs.DIGITS, 'train', tasks=TASKS, shares={'parity': 0.1, 'ink': 0.01})
    known = few.targets['parity'] >= 0
    assert known.sum() == round(0.1 * len(known))
    np.testing.assert_array_equal(few.targets['parity'][known], whole.targets['parity'][known])
    assert np.isfinite(few.targets['ink']).sum() == round(0.01 * len(known))
    one = sources.load(runs.DIGITS, 'train[100:200]', tasks=TASKS, classes=(3, 8))
    assert set(one.targets['parity'][one.targets['label'] == 0]) == {1}


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'tasks': ('label', 'partiy')}, "no task 'partiy'; did you mean 'parity'"),
        ({'tasks': ('label', 'label')}, 'names one twice'),
        ({'tasks': ('label',), 'shares': {'parity': 0.5}}, 'which tasks lacks'),
        ({'tasks': ('label',), 'shares': {'label': 0.0}}, r'is 0.0; expected a number in \(0, 1\]'),
    ],
)
def test_bad_tasks_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sources.load(runs.DIGITS, 'train', **options)


def test_class_names_of_two_parts_are_two_tasks(tmp_path):
    names = ['Apple___healthy', 'Apple___scab', 'Grape___healthy', 'Grape___rot']
    for i, name in enumerate(names):
        (tmp_path / name).mkdir()
        for k in range(5):
            image = Image.fromarray(np.full((8, 8, 3), 50 * i + k, np.uint8))
            image.save(tmp_path / name / f'{k}.png')
    source = sources.load(f'folder:{tmp_path}', 'all', tasks=('host', 'disease'))
    assert source.tasks['host'].classes == ('Apple', 'Grape')
    assert source.tasks['disease'].classes == ('healthy', 'rot', 'scab')
    for row, key in enumerate(source.keys):
        host, disease = (
            task.classes[source.targets[name][row]] for name, task in source.tasks.items()
        )
        assert f'{host}___{disease}' in key


def test_table_beside_a_folder(tmp_path):
    lines = ['image,host,tags,weight']
    for i in range(10):
        Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(tmp_path / f'{i}.png')
        tags, weight = ('red|round', 'red', '')[i % 3], '' if i == 4 else f'{i}.5'
        lines.append(f'{i}.png,{"oak" if i % 2 else "elm"},{tags},{weight}')
    (tmp_path / 'labels.csv').write_text('\n'.join(lines))
    source = sources.load(f'folder:{tmp_path}', 'all', tasks=('host', 'tags', 'weight'))
    assert [task.kind for task in source.tasks.values()] == [
        'classification',
        'multilabel',
        'regression',
    ]
    for row in range(10):
        i = int(source.fetch(row)[0, 0, 0])
        assert source.tasks['host'].classes[source.targets['host'][row]] == ('elm', 'oak')[i % 2]
        assert source.targets['tags'][row].tolist() == ([1, 1], [1, 0], [-1, -1])[i % 3]
        weight = source.targets['weight'][row, 0]
        assert np.isnan(weight) if i == 4 else weight == i + 0.5
    (tmp_path / 'labels.csv').write_text('image,host\n0.png,elm\nx.png,oak')
    with pytest.raises(ValueError, match=r'row 3 names .*x\.png, which is not there'):
        sources.load(f'folder:{tmp_path}')
    (tmp_path / 'labels.csv').write_text('file,host\n0.png,elm')
    with pytest.raises(ValueError, match="expected 'image' and one or more tasks"):
        sources.load(f'folder:{tmp_path}')


def test_further_arrays_of_npz_are_tasks(tmp_path):
    random = np.random.RandomState(0)
    arrays = {}
    for split, count in (('train', 12), ('test', 6)):
        arrays |= {
            f'{split}_image': random.randint(0, 256, (count, 8, 8)).astype(np.uint8),
            f'{split}_label': np.arange(count) % 3,
            f'{split}_label_tags': random.randint(-1, 2, (count, 2)),
            f'{split}_label_size': random.randn(count),
        }
    np.savez(tmp_path / 'a.npz', **arrays)
    source = sources.load(f'npz:{tmp_path / "a.npz"}', 'test', tasks=('label', 'tags', 'size'))
    assert {name: task.kind for name, task in source.tasks.items()} == {
        'label': 'classification',
        'tags': 'multilabel',
        'size': 'regression',
    }
    np.testing.assert_array_equal(source.targets['tags'], arrays['test_label_tags'])
    np.testing.assert_allclose(source.targets['size'][:, 0], arrays['test_label_size'], 1e-6)
    arrays['train_label_tags'] = arrays['train_label_tags'] + 2
    np.savez(tmp_path / 'a.npz', **arrays)
    with pytest.raises(ValueError, match='expected -1 for an absent one, else 0 or 1'):
        sources.load(f'npz:{tmp_path / "a.npz"}')
