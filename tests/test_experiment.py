"""Whole runs and studies: what they leave in their directories, and what has to be equal."""

import json
import shutil
import signal
import struct
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

from tests import runs
from tljax import config as configs
from tljax import experiment, initial, loop, partition, report, study, summary
from tljax.data import fingerprint, sources

AXES = [{'seed': s, 'labels_per_class': k} for s in (0, 1) for k in (5, 20)]


def leaves(directory):
    """The selected parameters of a run, by path."""
    return partition.flat(initial.trained(directory)[0])


def assert_close(a, b, tolerance=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, tolerance, tolerance), a, b)


def test_run_directory(tmp_path, capsys):
    assert runs.launch(tmp_path / 'run', 'evaluate_every=8') == 0
    shown = capsys.readouterr()
    assert 'tiny: step 8 of 20  test ' in shown.out
    assert f'report: {tmp_path / "run" / "report.html"}' in shown.out
    assert shown.err == ''
    found = {path.name for path in (tmp_path / 'run').iterdir()}
    files = {'config.json', 'data.json', 'metrics.jsonl', 'results.json', 'report.html'}
    assert found == files | {'checkpoints', '.lock'}
    lines = runs.lines(tmp_path / 'run')
    assert [line['step'] for line in lines] == [8, 16, 20]
    for line in lines:
        assert line['phase'] == 'train'
        assert set(line['train']) == {'model/loss', 'model/accuracy'}
        assert set(line['test']) == {'accuracy', 'per_class_accuracy', 'loss'}
        assert all(len(v) == 1 for part in ('train', 'test') for v in line[part].values())
    losses = [line['train']['model/loss'][0] for line in lines]
    assert losses == sorted(losses, reverse=True)


def test_results_say_what_they_are_of(tiny_study):
    found = json.loads((tiny_study / 'fine_tuned' / 'results.json').read_text())
    assert found['name'] == 'fine_tuned'
    assert found['members'] == AXES
    assert found['classes'] == ['5', '6', '7', '8', '9']
    assert found['image'] == [8, 8, 1]
    assert found['step'] == [20] * 4
    assert found['command'].startswith('python launch/train.py --config=')
    assert found['protocol'] == (
        'Trained on sklearn:digits (train), 25 to 100 examples. Evaluated on test: '
        'sklearn:digits (test), all 299 examples. Reported: last step.'
    )
    assert found['environment']['jax'] == jax.__version__
    assert set(found['seconds']) == {'setup', 'train', 'total'}
    scores = found['scores']['test']
    assert scores['count'] == 299
    for accuracy, confusion in zip(scores['accuracy'], scores['confusion'], strict=True):
        assert np.sum(confusion) == 299
        assert accuracy == np.trace(confusion) / 299
    last = runs.lines(tiny_study / 'fine_tuned')[-1]['test']
    assert last == {name: scores[name] for name in last}
    rows = {row['path']: row for row in found['parameters']}
    assert rows['encoder/hidden1/kernel']['shape'] == [64, 24]
    assert rows['encoder/hidden1/kernel']['trained_by'] == 'model'


def test_study_compares_its_arms(tiny_study):
    found = json.loads((tiny_study / 'results.json').read_text())
    assert found['arms'] == ['scratch', 'frozen', 'fine_tuned']
    assert found['supporting'] == ['pretrain']
    rows = [(row['labels_per_class'], row['arm']) for row in found['comparison']]
    assert rows == [(k, arm) for k in (5, 20) for arm in found['arms']]
    for row in found['comparison']:
        assert row['n'] == 2
        assert (row['verdict'] == 'baseline') == (row['arm'] == 'scratch')
        accuracy = runs.results(tiny_study / row['arm'])['scores']['test']['accuracy']
        chosen = [
            a
            for a, m in zip(accuracy, AXES, strict=True)
            if m['labels_per_class'] == row['labels_per_class']
        ]
        assert row['mean'] == pytest.approx(np.mean(chosen))
    also = found['also']['test per_class_accuracy']
    assert [(row['labels_per_class'], row['arm']) for row in also] == rows
    last = runs.results(tiny_study / 'fine_tuned')['scores']['test']['per_class_accuracy']
    assert np.mean([row['mean'] for row in also[2::3]]) == pytest.approx(np.mean(last))
    for name in ('.', 'pretrain', 'scratch', 'frozen', 'fine_tuned'):
        assert json.loads((tiny_study / name / 'config.json').read_text())
    page = (tiny_study / 'report.html').read_text()
    assert 'http' not in page.replace('http://www.w3.org', '')
    assert 'test per class accuracy' in page


def test_frozen_encoder_is_bitwise_that_of_its_seed(tiny_study):
    source, frozen = leaves(tiny_study / 'pretrain'), leaves(tiny_study / 'frozen')
    tuned = leaves(tiny_study / 'fine_tuned')
    encoder = [path for path in source if path.startswith('encoder/')]
    assert encoder
    for member, axes in enumerate(AXES):
        for path in encoder:
            ours = source[path][axes['seed']]
            np.testing.assert_array_equal(frozen[path][member], ours)
            assert (tuned[path][member] != ours).any()
    trained = {
        row['path']
        for row in runs.results(tiny_study / 'frozen')['parameters']
        if row['trained_by']
    }
    assert trained == {'head/kernel', 'head/bias'}


def test_cached_prefix_equals_the_uncached_run(tiny_study, tmp_path):
    changes = {'trains': 'head', 'init.from': str(tiny_study / 'pretrain')}
    c = runs.run(**changes, members={'seed': (0, 1), 'labels_per_class': (5, 20)})
    experiment.run(configs.checked(c), tmp_path)
    assert_close(initial.trained(tmp_path), initial.trained(tiny_study / 'frozen'))
    scores = [runs.results(d)['scores']['test'] for d in (tmp_path, tiny_study / 'frozen')]
    assert_close(scores[0]['loss'], scores[1]['loss'])


def test_solo_run_equals_its_member_of_many(tiny_study, tmp_path):
    changes = {'seed': 1, 'data.streams.source.labels_per_class': 20}
    experiment.run(runs.run(**changes), tmp_path)
    for path, leaf in leaves(tiny_study / 'scratch').items():
        np.testing.assert_allclose(leaf[3], leaves(tmp_path)[path][0], 1e-4, 1e-5)


def test_run_that_starts_from_another_needs_its_members(tiny_study, tmp_path):
    start = {'init.from': str(tiny_study / 'pretrain'), 'steps': 1}
    one = experiment.run(runs.run(**start, seed=1, trains='head'), tmp_path / 'one')
    assert one['members'] == [{'seed': 1}]
    source, ours = leaves(tiny_study / 'pretrain'), leaves(tmp_path / 'one')
    np.testing.assert_array_equal(
        ours['encoder/dense/kernel'][0], source['encoder/dense/kernel'][1]
    )
    with pytest.raises(ValueError, match=r"0 of its members fit member {'seed': 7}; they d"):
        experiment.run(runs.run(**start, seed=7), tmp_path / 'two')


def test_fed_stream_equals_resident_one(tmp_path):
    for name, limit in (('resident', 1024), ('fed', 0)):
        experiment.run(runs.run(**{'data.resident_mb': limit}), tmp_path / name)
    assert_close(leaves(tmp_path / 'fed'), leaves(tmp_path / 'resident'))
    fed, resident = (runs.results(tmp_path / n)['scores']['test'] for n in ('fed', 'resident'))
    assert fed['accuracy'] == resident['accuracy']


def test_training_in_bfloat16_keeps_float32_and_learns(tmp_path):
    """Convolutions and norms compute in 16 bits; parameters and statistics have 32."""
    net = {'name': 'vgg', 'depth': 11, 'norm': True, 'width': 4, 'dtype': 'bfloat16'}
    changes = {'endpoint': 'stage2', 'steps': 24, 'evaluate_every': 8, 'hparams.rate': 0.1}
    experiment.run(runs.run(net=net | {'input': {'size': 8}}, **changes), tmp_path)
    params, mutable = map(partition.flat, initial.trained(tmp_path))
    variances = [leaf for path, leaf in mutable.items() if path.endswith('/var')]
    assert len(variances) == 2
    assert {leaf.dtype for leaf in (*params.values(), *variances)} == {np.dtype('float32')}
    losses = [line['train']['model/loss'][0] for line in runs.lines(tmp_path)]
    assert losses[2] < losses[1] < losses[0] < 1.7


def test_last_step_is_what_it_says(tmp_path):
    found = experiment.run(runs.run(steps=7, evaluate_every=3), tmp_path)
    assert found['step'] == [7]
    assert [line['step'] for line in runs.lines(tmp_path)] == [3, 6, 7]


def test_finished_run_is_left_alone(tiny_study, monkeypatch, capsys):
    # The report is written anew, with the same content.
    files = [p for p in tiny_study.rglob('*') if p.is_file() and p.name != 'report.html']
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in files}
    monkeypatch.setattr(experiment, 'prepare', None)
    began = time.perf_counter()
    command = json.loads((tiny_study / 'results.json').read_text())['command']
    study.run(runs.study(), tiny_study, command)
    assert time.perf_counter() - began < 10
    assert capsys.readouterr().out.count('finished already: ') == 4
    again = [p for p in tiny_study.rglob('*') if p.is_file() and p.name != 'report.html']
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in again} == before


def test_study_may_gain_an_arm_and_keeps_the_others(tmp_path, monkeypatch):
    c = runs.run(steps=2, evaluate_every=0)
    c.runs = {'a': {}, 'b': {'hparams': {'rate': 0.1}}}
    c.compare.update(baseline='a', arms=('a', 'b'))
    monkeypatch.setattr(report, 'write', lambda directory: directory)
    study.run(c, tmp_path)
    before = (tmp_path / 'a' / 'results.json').stat().st_mtime_ns
    c.runs.third = {'trains': 'head'}
    c.compare.arms = ('a', 'b', 'third')
    found = study.run(c, tmp_path)
    assert {row['arm'] for row in found['comparison']} == {'a', 'b', 'third'}
    assert (tmp_path / 'a' / 'results.json').stat().st_mtime_ns == before


@pytest.mark.parametrize('steps', [2, 0])
def test_a_stop_at_the_end_of_an_arm_ends_the_study(tmp_path, monkeypatch, steps):
    c = runs.run(steps=steps, evaluate_every=0)
    c.runs = {'a': {}, 'b': {'hparams': {'rate': 0.1}}}
    c.compare.update(baseline='a', arms=('a', 'b'))
    brief = summary.brief

    def stopped(scores):
        signal.raise_signal(signal.SIGTERM)
        return brief(scores)

    with monkeypatch.context() as patch, pytest.raises(loop.Stopped, match='at the end of a; ev'):
        patch.setattr(summary, 'brief', stopped)
        study.run(c, tmp_path)
    before = (tmp_path / 'a' / 'results.json').stat().st_mtime_ns
    assert not (tmp_path / 'b').exists()
    assert set(study.run(c, tmp_path)['arms']) == {'a', 'b'}
    assert (tmp_path / 'a' / 'results.json').stat().st_mtime_ns == before


@pytest.fixture
def photos(tmp_path):
    """A folder of two classes, and the config of a run on them."""
    for number, name in enumerate(('cat', 'dog')):
        (tmp_path / 'photos' / name).mkdir(parents=True)
        for k in range(5):
            image = Image.fromarray(np.full((8, 8), 50 * number + k, np.uint8))
            image.save(tmp_path / 'photos' / name / f'{k}.png')
    c = runs.run(steps=1, evaluate_every=0)
    for part in (c.data.streams.source, c.data.evaluate.test):
        part.update(dataset=f'folder:{tmp_path / "photos"}', classes=())
    c.data.streams.source.batch = 2
    return tmp_path / 'photos', c


def test_data_that_have_changed_are_refused(photos, tmp_path, capsys):
    folder, c = photos
    done, begun = tmp_path / 'done', tmp_path / 'begun'
    found = experiment.run(c, done)
    shutil.copytree(done, begun)
    (begun / 'results.json').unlink()
    assert experiment.run(c, done) == found
    assert capsys.readouterr().out.endswith(f'finished already: {done}\n')
    (folder / 'cat').rename(folder / 'wolf')
    for directory in (done, begun):
        with pytest.raises(ValueError, match=r"labels of stream 'source' \(folder:.* have changed"):
            experiment.run(c, directory)
    (begun / 'data.json').unlink()  # as of an older version
    assert 'results.json' not in {path.name for path in begun.iterdir()}
    assert experiment.run(c, begun)['classes'] == ['dog', 'wolf']
    folder.rename(tmp_path / 'away')  # then there is nothing to compare
    assert experiment.run(c, done) == found
    assert 'its data cannot be read' in capsys.readouterr().out


def test_data_that_lie_elsewhere_are_the_same(photos, tmp_path):
    folder, _ = photos
    shutil.copytree(folder, tmp_path / 'b' / 'elsewhere')
    places = [f'folder:{place}' for place in (folder, tmp_path / 'b' / 'elsewhere')]
    one, other = (fingerprint.digest(sources.load(place), place) for place in places)
    assert one == other
    (folder / 'cat' / '3.png').rename(folder / 'cat' / 'three.png')
    assert fingerprint.digest(sources.load(places[0]), places[0]) != one


def events(folder):
    """The events of TensorBoard files: length, checksum, protocol buffer, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    for file in sorted(folder.glob('events.*')):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack('<Q', data[at : at + 8])
            yield Event.FromString(data[at + 12 : at + 12 + length])
            at += length + 16


def test_tensorboard_has_a_run_for_each_member(tmp_path):
    pytest.importorskip('tensorboardX')
    c = runs.run(tensorboard=True, steps=4, evaluate_every=2, members={'rate': (0.1, 0.01)})
    found = experiment.run(c, tmp_path)
    folders = sorted(path.name for path in (tmp_path / 'tensorboard').iterdir())
    assert folders == ['seed=0,rate=0.01', 'seed=0,rate=0.1']
    every = list(events(tmp_path / 'tensorboard' / 'seed=0,rate=0.01'))
    scalars = {(e.step, v.tag): v.simple_value for e in every for v in e.summary.value}
    assert {step for step, _ in scalars} == {2, 4}
    assert scalars[4, 'test/accuracy'] == np.float32(found['scores']['test']['accuracy'][1])
    assert (4, 'train/model/loss') in scalars
    assert any(e.HasField('session_log') and e.step == 0 for e in every)


def test_tensorboard_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'tensorboardX', None)
    with pytest.raises(ValueError, match=r"needs tensorboardX: pip install -e '\.\[tensorboard\]'"):
        experiment.run(runs.run(tensorboard=True), tmp_path)
    assert not (tmp_path / 'config.json').exists()
