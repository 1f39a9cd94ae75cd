"""launch/predict.py on the test images of the tiny study, written as PNG files."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from launch import predict
from tests import runs
from tljax import predict as models
from tljax import study
from tljax.config import checked
from tljax.data import sources
from tljax.prepare import prepare

CLASSES = ['5', '6', '7', '8', '9']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """All 299 test images as class/row.png, two levels below the folder."""
    top = tmp_path_factory.mktemp('digits')
    source = sources.load(runs.DIGITS, 'test', classes=runs.NEW)
    for row, label in enumerate(source.labels):
        path = top / 'test' / source.classes[label] / f'{row:03d}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(source.fetch(row)[..., 0]).save(path)
    return top


def call(capsys, *arguments):
    """Exit code, standard output and error of a command line."""
    code = predict.main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_accuracy_equals_that_of_the_evaluation(tiny_study, folder, capsys):
    run = tiny_study / 'frozen'  # trained on a cached prefix
    for member, accuracy in enumerate(runs.results(run)['scores']['test']['accuracy']):
        options = ('--run', run, '--format', 'csv', '--member', member)
        code, out, err = call(capsys, *options, folder)
        assert code == 0
        assert err.startswith(f'{run}: member {member} of 4 (seed {member // 2}, labels_per_class')
        rows = list(csv.DictReader(io.StringIO(out)))
        assert len(rows) == 299
        right = [row['class'] == row['image'].split('/')[-2] for row in rows]
        assert np.mean(right) == pytest.approx(accuracy, abs=1e-12)


def test_probabilities_are_those_of_the_run_and_sum_to_one(tiny_study, folder, capsys):
    options = ('--run', tiny_study / 'scratch', '--format', 'json', '--top', 9, '--member', 2)
    code, out, _ = call(capsys, *options, folder)
    assert code == 0
    prepared = prepare(checked(runs.run()))
    params, mutable = models.initial.trained(tiny_study / 'scratch')
    own = [{k: _row(v, 2) for k, v in part.items()} for part in (params, mutable)]
    logits = prepared.method.predict(*own, prepared.held['test'].image)['logits']
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for entry in json.loads(out):
        found = {one['class']: one['probability'] for one in entry['predictions']}
        assert sorted(found) == CLASSES
        assert sum(found.values()) == pytest.approx(1, abs=1e-5)
        assert list(found.values()) == sorted(found.values(), reverse=True)
        row = int(entry['image'][-7:-4])
        np.testing.assert_allclose([found[name] for name in CLASSES], expected[row], 1e-4, 1e-6)


def _row(tree, member):
    return {k: _row(v, member) for k, v in tree.items()} if isinstance(tree, dict) else tree[member]


def test_formats_have_the_same_columns_in_the_same_order(tiny_study, folder, capsys):
    images = sorted(folder.rglob('*.png'))[:2]
    options = ('--run', tiny_study / 'scratch', '--top', 2)
    tables = {}
    for kind in ('table', 'csv'):
        _, out, _ = call(capsys, *options, *images, '--format', kind)
        tables[kind] = [line.split(',' if kind == 'csv' else None) for line in out.splitlines()]
    columns = ['image', 'class', 'probability', 'class_2', 'probability_2']
    assert tables['table'][0] == tables['csv'][0] == columns
    for short, long in zip(tables['table'][1:], tables['csv'][1:], strict=True):
        assert short[:2] == long[:2]
        assert float(short[2]) == pytest.approx(float(long[2]), abs=1e-4)
    assert [row[0] for row in tables['csv'][1:]] == [str(image) for image in images]


def test_default_member_has_the_most_labels_and_the_first_seed(tiny_study, folder, capsys):
    image = next(folder.rglob('*.png'))
    _, _, err = call(capsys, '--run', tiny_study / 'scratch', image)
    assert 'scratch: member 1 of 4 (seed 0, labels_per_class 20)' in err
    _, _, err = call(capsys, '--run', tiny_study / 'pretrain', image)
    assert 'pretrain: member 0 of 2 (seed 0)' in err


def test_images_are_made_what_the_run_had(tiny_study, tmp_path, capsys):
    own = Image.new('L', (8, 8), 90)
    own.save(tmp_path / 'own.png')
    own.resize((70, 50)).convert('RGB').save(tmp_path / 'large.png')
    Image.fromarray(np.full((8, 8), 90 * 257, np.uint16)).save(tmp_path / 'deep.png')
    _, out, _ = call(capsys, '--run', tiny_study / 'scratch', tmp_path, '--format', 'json')
    deep, large, same = (entry['predictions'] for entry in json.loads(out))
    assert deep == large == same


def test_black_on_white_is_what_white_on_black_was(tiny_study, folder, tmp_path, capsys):
    paths, told = sorted(folder.rglob('*.png'))[:3], []
    for path in paths:
        Image.fromarray(255 - np.asarray(Image.open(path))).save(tmp_path / path.name)
    options = ('--run', tiny_study / 'scratch', '--format', 'json')
    for images in ((*paths,), ('--invert', *(tmp_path / path.name for path in paths))):
        code, out, _ = call(capsys, *options, *images)
        told.append([one['predictions'] for one in json.loads(out)])
    assert code == 0
    assert told[0] == told[1]


def test_unreadable_images_are_named_and_the_others_predicted(tiny_study, folder, tmp_path, capsys):
    good = next(folder.rglob('*.png'))
    shutil.copy(good, tmp_path / 'good.png')
    (tmp_path / 'short.png').write_bytes(good.read_bytes()[:60])
    (tmp_path / 'text.png').write_text('no image')
    (tmp_path / 'notes.txt').write_text('passed over')
    (tmp_path / '.hidden.png').write_text('passed over')
    code, out, err = call(capsys, '--run', tiny_study / 'scratch', tmp_path, '--format', 'csv')
    assert code == 3
    assert [line.split(',')[0] for line in out.splitlines()] == ['image', f'{tmp_path}/good.png']
    assert f'error: {tmp_path}/short.png: is truncated or damaged' in err
    assert f'error: {tmp_path}/text.png: is no image that Pillow can read' in err
    assert err.endswith('error: 2 of 3 images could not be read\n')


def test_more_images_than_a_block_and_one_given_twice(tiny_study, folder, capsys):
    images = sorted((folder / 'test' / '5').iterdir())
    assert len(images) < models.BLOCK < 299
    options = ('--run', tiny_study / 'scratch', '--format', 'csv')
    _, few, _ = call(capsys, *options, *images, images[0])
    _, every, _ = call(capsys, *options, folder)
    assert len(few.splitlines()) == len(images) + 1
    assert set(few.splitlines()) < set(every.splitlines())


@pytest.mark.parametrize(
    ('run', 'image', 'options', 'message'),
    [
        ('nowhere', '.', (), 'nowhere: there is no such directory'),
        ('', '.', (), 'holds several runs; choose one: '),
        ('', '.', (), 'study/fine_tuned, '),
        ('scratch/checkpoints', '.', (), 'checkpoints is not a run directory: it has no config.js'),
        ('scratch', '.', ('--member', 4), '--member 4: {run} has the members 0..3'),
        ('scratch', '.', ('--member', -1), '--member -1: {run} has the members 0..3'),
        ('scratch', 'gone.png', (), 'gone.png: there is no such file or folder'),
        ('scratch', 'empty', (), 'empty: holds no image files'),
    ],
)
def test_what_cannot_be_is_told(tiny_study, tmp_path, capsys, run, image, options, message):
    (tmp_path / 'empty').mkdir()
    before = sorted(tiny_study.rglob('*'))
    run = tiny_study / run
    code, out, err = call(capsys, '--run', run, tmp_path / image, *options)
    assert (code, out) == (2, '')
    assert err.startswith('error: ')
    assert message.format(run=run) in err
    assert sorted(tiny_study.rglob('*')) == before


def test_unfinished_run_is_told(tiny_study, tmp_path, capsys):
    shutil.copy(tiny_study / 'scratch' / 'config.json', tmp_path)
    code, _, err = call(capsys, '--run', tmp_path, tmp_path)
    assert code == 2
    assert 'is not finished: it has no results.json; go on with the command that began it' in err


@pytest.mark.parametrize('option', [('--top', '0'), ('--format', 'xml')])
def test_options_that_cannot_be_end_with_the_usage(tiny_study, capsys, option):
    with pytest.raises(SystemExit) as stopped:
        predict.main(['--run', str(tiny_study), 'x.png', *option])
    assert stopped.value.code == 2
    assert 'usage: ' in capsys.readouterr().err


TASKS = ('label', 'tags', 'size', 'place')


@pytest.fixture(scope='module')
def several(tmp_path_factory):
    """A finished run of four tasks of digits; its test images as row.png; the labels in there."""
    top = tmp_path_factory.mktemp('several')
    arrays = {}
    for split in ('train', 'test'):
        source = sources.load(runs.DIGITS, split, classes=runs.NEW)
        images = np.stack([source.fetch(row)[..., 0] for row in range(len(source.labels))])
        lower = images[:, 4:].mean((1, 2)) / 255
        arrays |= {
            f'{split}_image': images,
            f'{split}_label': source.labels,
            f'{split}_label_tags': np.stack([source.labels > 1, source.labels % 2 == 0], 1) * 1,
            f'{split}_label_size': images.mean((1, 2)) / 255,
            f'{split}_label_place': np.stack([lower, 1 - lower], 1),
        }
    (top / 'images').mkdir()
    for row, image in enumerate(arrays['test_image']):
        Image.fromarray(image).save(top / 'images' / f'{row:03d}.png')
    np.savez(top / 'several.npz', **arrays)
    changes = {'method': 'multitask', 'steps': 60, 'evaluate_every': 0, 'hparams.rate': 0.01}
    c = runs.run(**changes)
    for stream in (c.data.streams.source, c.data.evaluate.test):
        stream.update(dataset=f'npz:{top / "several.npz"}', tasks=TASKS, classes=())
    study.run(checked(c), top / 'run')
    return top / 'run', top / 'images', arrays


def test_every_task_is_told_and_scores_as_in_the_evaluation(several, capsys):
    run, images, arrays = several
    code, out, _ = call(capsys, '--run', run, '--format', 'json', '--top', 9, images)
    assert code == 0
    entries = [entry['tasks'] for entry in json.loads(out)]
    scores = runs.results(run)['scores']['test']
    label = arrays['test_label']
    for entry in entries:
        assert list(entry) == list(TASKS)
        assert len(entry['label']) == 5
        assert sum(one['probability'] for one in entry['label']) == pytest.approx(1, abs=1e-5)
        assert all(one['probability'] > 0.5 for one in entry['tags'])
    right = [entry['label'][0]['class'] == str(c) for entry, c in zip(entries, label, strict=True)]
    assert np.mean(right) == pytest.approx(scores['label_accuracy'][0], abs=1e-12)
    assert 0.3 < np.mean(right) < 1
    names = runs.results(run)['tasks']['tags']['classes']
    tags = [[n in {one['class'] for one in entry['tags']} for n in names] for entry in entries]
    hits = tags == arrays['test_label_tags'].astype(bool)
    assert hits.mean() == pytest.approx(scores['tags_accuracy'][0], abs=1e-12)
    size = [entry['size'].values() for entry in entries]
    error = np.array([value for (value,) in size]) - arrays['test_label_size']
    assert np.sqrt((error**2).mean()) == pytest.approx(scores['size_rmse'][0], rel=1e-4)
    place = np.array([list(entry['place'].values()) for entry in entries])
    error = np.sqrt(((place - arrays['test_label_place']) ** 2).mean())
    assert error == pytest.approx(scores['place_rmse'][0], rel=1e-4)


def test_formats_of_several_tasks_say_the_same(several, capsys):
    run, images, _ = several
    some = sorted(images.iterdir())[:9]
    found = {}
    for kind in ('table', 'csv', 'json'):
        code, out, _ = call(capsys, '--run', run, '--top', 2, *some, '--format', kind)
        assert code == 0
        found[kind] = out
    rows = list(csv.DictReader(io.StringIO(found['csv'])))
    tasks = runs.results(run)['tasks']
    assert list(rows[0]) == [
        'image',
        *('label', 'label_probability', 'label_2', 'label_probability_2'),
        *('tags', 'tags_probability'),
        'size',
        *(f'place_{name}' for name in tasks['place']['classes']),
    ]
    lines = found['table'].splitlines()
    assert lines[0].split() == list(rows[0])
    seen = set()
    for row, line, entry in zip(rows, lines[1:], json.loads(found['json']), strict=True):
        told = entry['tasks']
        assert row['image'] == entry['image'] == line.split()[0]
        for rank, end in enumerate(('', '_2')):
            one = told['label'][rank]
            assert row[f'label{end}'] == one['class']
            assert float(row[f'label_probability{end}']) == pytest.approx(one['probability'], 1e-5)
        assert row['tags'] == '|'.join(one['class'] for one in told['tags'])
        numbers = [float(x) for x in row['tags_probability'].split('|') if x]
        np.testing.assert_allclose(numbers, [one['probability'] for one in told['tags']], 1e-6)
        assert numbers == sorted(numbers, reverse=True)
        seen.add(len(numbers))
        assert [float(row['size'])] == pytest.approx(list(told['size'].values()), abs=1e-7)
        assert f'{float(row["size"]):.4f}' in line
    assert len(seen) > 1, 'all images have as many labels'
