"""Features are those of the net, computed once, and never those of something else."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from launch import extract as command
from tests.conftest import CACHE
from tljax import backbones, features, store, workdir
from tljax.methods.networks import encoder
from tljax.nets import pretrained
from tljax.nets.apply import variables
from tljax.nets.lenet import LeNet

NET = {'name': 'lenet', 'widths': (3, 4), 'kernel': 3, 'dense': 6, 'padding': 'SAME'}
NET['input'] = {'size': 8, 'channels': 1}
COUNT = 23


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """A folder with images and with weights of two networks."""
    folder = tmp_path_factory.mktemp('made')
    for seed in (0, 1):
        params, mutable = variables(backbone(), jax.random.key(seed), np.zeros((2, 8, 8, 1)))
        roles = {'encoder': params}, {'encoder': mutable}
        pretrained.export(folder / f'{seed}.safetensors', backbone(), *roles)
    write_images(folder / 'images.npz')
    return folder


def backbone():
    return LeNet((3, 4), 3, 6, 'SAME').clone(input=encoder_input())


def encoder_input():
    return LeNet().input._replace(size=8)


def write_images(path: Path, seed: int = 0):
    random = np.random.RandomState(seed)
    images = random.randint(0, 256, (COUNT, 8, 8)).astype(np.uint8)
    np.savez(path, train_image=images, train_label=np.arange(COUNT) % 3)


@pytest.fixture
def ask(made, tmp_path):
    """`extract` with everything set; `ask.passes` lists what was computed: endpoints, first row."""
    passes, computed = [], features.computed

    def noted(*args, first=0):
        passes.append((tuple(args[3]), first))
        return computed(*args, first=first)

    def run(*endpoints, **changes):
        given = {
            'weights': f'file:{made}/0.safetensors',
            'net': NET,
            'dataset': f'npz:{made}/images.npz',
            'split': 'train',
            'endpoints': endpoints or ('features',),
            'root': tmp_path / 'store',
            'block': 4,
        }
        return features.extract(**given | changes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, 'computed', noted)
        run.passes = passes
        yield run


def test_features_are_the_nets(ask, made):
    found = ask('conv2', 'conv1', 'features', pool='max')
    images = np.load(made / 'images.npz')['train_image'][..., None]
    params = backbones.values(f'file:{made}/0.safetensors', backbone(), (8, 8, 1))
    outputs = backbone().apply(
        params, images / np.float32(127.5) - 1, until=('conv1', 'conv2', 'features')
    )
    assert list(found.arrays) == ['conv2', 'conv1', 'features']
    for name, output in outputs.items():
        wanted = output.max((1, 2)) if output.ndim > 2 else output
        np.testing.assert_allclose(found.arrays[name], wanted, rtol=1e-5, atol=1e-6)
        assert isinstance(found.arrays[name], np.memmap)
    np.testing.assert_array_equal(found.labels, np.arange(COUNT) % 3)
    assert found.classes == ('0', '1', '2')
    assert ask.passes == [(('conv2', 'conv1', 'features'), 0)], 'one pass'
    # Other programs find labels beside the arrays, and what they are of.
    np.testing.assert_array_equal(np.load(found.folder / 'labels.npy'), found.labels)
    about = json.loads((found.folder / 'key.json').read_text())['about']
    assert about['weights'] == f'file:{made}/0.safetensors'


def test_only_what_is_missing_is_computed(ask, made, tmp_path):
    ask('conv1')
    ask('conv1', 'features')
    ask('features', 'conv1')
    assert ask.passes == [(('conv1',), 0), (('features',), 0)]
    # Pooling matters to maps only, and the same bytes elsewhere are the same.
    ask('features', pool='flat')
    for name in ('0.safetensors', 'images.npz'):
        shutil.copy(made / name, tmp_path / name)
    ask('features', weights=f'file:{tmp_path}/0.safetensors', dataset=f'npz:{tmp_path}/images.npz')
    assert len(ask.passes) == 2
    ask('conv1', pool='flat')
    assert ask.passes[2:] == [(('conv1',), 0)]


@pytest.mark.parametrize(
    'changes',
    [
        {'weights': '1'},
        {'net': NET | {'input': {'size': 8, 'channels': 1, 'mean': (0.4,)}}},
        {'net': NET | {'input': {'size': 8, 'channels': 1, 'std': (0.4,)}}},
        {'size': 9, 'endpoints': ('conv1',)},
        {'fit': 'crop:0.5'},
        {'classes': ('1', '0', '2')},
        {'split': 'train[1:]'},
    ],
    ids=str,
)
def test_other_settings_are_other_features(ask, made, changes):
    if 'weights' in changes:
        changes = {'weights': f'file:{made}/1.safetensors'}
    endpoints = {'endpoints': changes.get('endpoints', ('features',))}
    before, after = ask(**endpoints), ask(**changes)
    assert after.folder != before.folder
    assert len(ask.passes) == 2
    name = endpoints['endpoints'][0]
    rows = (before.arrays[name][:2], after.arrays[name][:2])
    assert rows[0].shape != rows[1].shape or not np.allclose(*rows) or 'classes' in changes


def test_bfloat16_is_another_computation(ask, made):
    resnet = {'name': 'cifar_resnet', 'input': {'size': 8}}
    nets = [encoder_of(resnet | {'dtype': dtype}) for dtype in ('float32', 'bfloat16')]
    keys = [features._fields(net) for net in nets]
    assert store.digest(keys[0]) != store.digest(keys[1])


def encoder_of(net):
    from ml_collections import ConfigDict

    return encoder(ConfigDict({'net': net}))


def test_files_that_changed_are_never_stale(ask, made, tmp_path):
    """The same names, sizes and dates, but other images or weights."""
    weights, images = tmp_path / 'w.safetensors', tmp_path / 'images.npz'
    shutil.copy(made / '0.safetensors', weights)
    write_images(images)
    where = {'weights': f'file:{weights}', 'dataset': f'npz:{images}'}
    found = [ask(**where)]
    stats = images.stat()
    write_images(images, seed=1)
    os.utime(images, ns=(stats.st_atime_ns, stats.st_mtime_ns))
    assert images.stat().st_size == stats.st_size
    found.append(ask(**where))
    stats = weights.stat()
    shutil.copy(made / '1.safetensors', weights)
    os.utime(weights, ns=(stats.st_atime_ns, stats.st_mtime_ns))
    found.append(ask(**where))
    assert len({one.folder for one in found}) == len(ask.passes) == 3


def test_folder_whose_files_changed(ask, tmp_path):
    random = np.random.RandomState(0)
    for name in ('a/1', 'a/2', 'b/1', 'b/2'):
        path = tmp_path / 'set' / 'train' / f'{name}.bmp'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.randint(0, 256, (8, 8)).astype(np.uint8)).save(path)
    where = {'dataset': f'folder:{tmp_path}/set', 'channels': 1}
    found = [ask(**where), ask(**where)]
    assert len(ask.passes) == 1
    named = (found[0].folder / 'rows.txt').read_text().splitlines()
    assert sorted(Path(row).parent.name for row in named) == ['a', 'a', 'b', 'b']
    stats = path.stat()
    Image.fromarray(random.randint(0, 256, (8, 8)).astype(np.uint8)).save(path)
    os.utime(path, ns=(stats.st_atime_ns, stats.st_mtime_ns))
    found.append(ask(**where))
    path.unlink()
    found.append(ask(**where))
    assert len({one.folder for one in found}) == len(ask.passes) == 3
    assert [len(one.labels) for one in found] == [4, 4, 4, 3]


def test_tfds_records_that_changed(ask, tmp_path):
    from tests.data import toys

    small = {'name': 'mlp', 'widths': (3,), 'dense': 2, 'input': {'size': 8, 'channels': 3}}
    weights, net = tmp_path / 'w.safetensors', encoder_of(small)
    params, mutable = variables(net, jax.random.key(0), np.zeros((2, 8, 8, 3)))
    pretrained.export(weights, net, {'encoder': params}, {'encoder': mutable})
    where = {'weights': f'file:{weights}', 'net': small, 'dataset': 'tfds:toy_colours'}
    where |= {'data_dir': str(tmp_path)}
    toys.ToyColours(data_dir=str(tmp_path), file_format='array_record').download_and_prepare()
    first = ask(**where)
    assert ask(**where).folder == first.folder
    shutil.rmtree(tmp_path / 'toy_colours')
    toys.ToyColours(data_dir=str(tmp_path), file_format='array_record').download_and_prepare()
    assert ask(**where).folder != first.folder


# Killed, damaged, full.


class Killed(BaseException):
    pass


def kill_after(monkeypatch, blocks: int):
    """Extraction dies after so many blocks, without a chance to save what it has."""
    append = store.Writer.append

    def dying(writer, found):
        append(writer, found)
        if writer.rows >= 4 * blocks:
            raise Killed

    monkeypatch.setattr(store.Writer, 'append', dying)
    monkeypatch.setattr(store.Writer, '__exit__', lambda *_: None)
    monkeypatch.setattr(store, 'SAVE_SECONDS', 0)


def test_killed_extraction_goes_on(ask, monkeypatch, tmp_path):
    whole = ask('conv1', 'features', root=tmp_path / 'other')
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 3)
        ask('conv1', 'features')
    (folder,) = (tmp_path / 'store').iterdir()
    assert not list(folder.glob('conv1*.npy'))
    # A part that was cut, or grew without the word that it did, is taken as far as both agree.
    with (folder / 'features.part').open('r+b') as file:
        file.truncate(128 + 4 * 6 * 10 + 3)
    with (folder / 'conv1-mean.part').open('ab') as file:
        file.write(b'noise')
    found = ask('conv1', 'features', block=5)
    assert ask.passes == [(('conv1', 'features'), 0)] * 2 + [(('conv1', 'features'), 10)]
    for name in ('conv1', 'features'):
        np.testing.assert_allclose(found.arrays[name], whole.arrays[name], rtol=1e-6, atol=1e-7)
    assert not list(folder.glob('*.part*'))


def test_killed_between_the_last_row_and_the_renaming(ask, monkeypatch, tmp_path):
    replace = Path.replace

    def dying(path, target):
        if path.name == 'features.part':
            raise Killed
        return replace(path, target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, 'replace', dying)
        ask('conv1', 'features')
    ask('conv1', 'features')
    assert ask.passes[1:] == [(('features',), COUNT)], 'no row is computed again'


def test_stopped_extraction_keeps_all_it_has(ask, monkeypatch):
    append = store.Writer.append

    def stopping(writer, found):
        append(writer, found)
        if writer.rows == 8:
            raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(store.Writer, 'append', stopping)
        ask()
    ask()
    assert ask.passes[1:] == [(('features',), 8)]


def test_store_that_cannot_be(ask, monkeypatch, tmp_path):
    found = ask()
    path = found.folder / 'features.npy'
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(ValueError, match=r'features\.npy is damaged \(.*\); delete it to compute'):
        ask()
    np.save(path, np.zeros((COUNT, 5), np.float32))
    with pytest.raises(ValueError, match=r'holds float32 \[23, 5\], expected float32 \[23, 6\]'):
        ask()
    path.write_bytes(whole)
    np.testing.assert_array_equal(ask().arrays['features'], found.arrays['features'])
    key = json.loads((found.folder / 'key.json').read_text())
    key['key']['data']['pixels']['fit'] = 'squash'
    (found.folder / 'key.json').write_text(json.dumps(key))
    with pytest.raises(ValueError, match=r'key\.json is of other settings than its folder; delete'):
        ask()
    (tmp_path / 'file').write_text('')
    with pytest.raises(ValueError, match='cannot be written'):
        ask(root=tmp_path / 'file')
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)
    with pytest.raises(ValueError, match=r'conv2-flat need 0\.0 GB more, but 0\.0 GB are free'):
        ask('conv2', pool='flat', root=tmp_path / 'full')


def test_two_at_once_compute_once(ask, monkeypatch, capsys):
    """The second waits for the first and takes what it left."""
    held, answers = workdir.held, []

    def meanwhile(folder, what, waiting):
        monkeypatch.setattr(workdir, 'held', held)
        answers.append(ask())  # the other process, which is done before the lock is ours
        waiting()
        return held(folder, what, waiting)

    monkeypatch.setattr(workdir, 'held', meanwhile)
    found = ask()
    assert len(ask.passes) == 1
    assert 'another process computes these features; waiting' in capsys.readouterr().out
    np.testing.assert_array_equal(found.arrays['features'], answers[0].arrays['features'])


# The command line.


def run_command(*arguments, devices: int = 1):
    changes = {
        'JAX_NUM_CPU_DEVICES': str(devices),
        'JAX_PLATFORMS': 'cpu',
        'JAX_COMPILATION_CACHE_DIR': str(CACHE),
    }
    script = Path(command.__file__)
    return subprocess.run(
        [sys.executable, script, *arguments],
        env=os.environ | changes,
        capture_output=True,
        text=True,
    )


def test_command_on_three_devices(ask, made, tmp_path):
    done = run_command(
        f'--weights=file:{made}/0.safetensors',
        f'--net={json.dumps(NET)}',
        f'--data=npz:{made}/images.npz',
        '--endpoints=conv2,features',
        f'--out={tmp_path}/three',
        '--block=6',
        devices=3,
    )
    assert done.returncode == 0, done.stderr
    lines = dict(line.rsplit(': ', 1) for line in done.stdout.splitlines() if '.npy' in line)
    assert lines.keys() == {'train conv2 [23, 4]', 'train features [23, 6]'}
    for path, wanted in zip(lines.values(), ask('conv2', 'features').arrays.values(), strict=True):
        np.testing.assert_allclose(np.load(path), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (['--endpoints=conv3'], "unknown endpoint of LeNet 'conv3': there are .*did you mean"),
        (['--endpoints=,'], 'no endpoint asked for; there are conv1, conv2, features'),
        (['--pool=median'], "unknown pooling 'median'"),
        (['--weights=file:nowhere.npz'], 'nowhere.npz: no such file'),
        (['--weights=runs/nowhere'], 'weights runs/nowhere: expected a run directory with check'),
        (
            ['--net={"name": "lenet"}'],
            r'file:\S+ encoder/conv1/bias has shape \(3,\) there, \(20,\) here',
        ),
        (['--data=npz:nowhere.npz'], 'nowhere.npz: there is no such file'),
        (['--split', 'train', 'test'], "there is no split 'test'"),
        (['--block=0'], 'block is 0; expected 1 or more images'),
        (['--devices=-1'], r'devices=-1 asked for, but there are \d+ \(cpu\)'),
        (['--net=5'], '--net: .5. is not an object'),
        (['--size=2'], 'LeNet cannot be made for images|are too small for LeNet'),
    ],
)
def test_command_with_bad_input(made, tmp_path, capsys, changes, message):
    given = {
        '--weights': f'file:{made}/0.safetensors',
        '--net': json.dumps(NET),
        '--data': f'npz:{made}/images.npz',
        '--endpoints': 'features',
        '--out': str(tmp_path),
    }
    flags = [f'{name}={value}' for name, value in given.items()]
    assert command.main([*flags, *changes]) == 2
    with pytest.raises(ValueError, match=message):
        raise ValueError(capsys.readouterr().err)


@pytest.mark.parametrize(
    ('net', 'message'),
    [('{"name"', 'is not JSON'), ('[1]', 'is not an object'), (None, 'does not tell the net')],
)
def test_command_without_a_net(made, tmp_path, capsys, net, message):
    flags = [f'--weights=file:{made}/0.safetensors', f'--data=npz:{made}/images.npz']
    flags += ['--endpoints=features', f'--out={tmp_path}', *([f'--net={net}'] if net else [])]
    assert command.main(flags) == 2
    assert message in capsys.readouterr().err


def test_features_of_a_runs_member(tiny_study, tmp_path, capsys):
    """The weights of a run, and the net it says it has."""
    from tests import runs
    from tljax import initial

    run, root = tiny_study / 'fine_tuned', tmp_path / 'store'
    flags = [f'--weights={run}', f'--data={runs.DIGITS}', '--split=train[:20]', f'--out={root}']
    assert command.main([*flags, '--endpoints=features', '--member=3']) == 0
    (path,) = root.glob('*/features.npy')
    params = jax.tree.map(lambda x: x[3], initial.trained(run)[0])['encoder']
    net = encoder_of(workdir.read_json(run / 'config.json')['net'])
    images = features.sources.arrays(features.sources.load(runs.DIGITS, 'train[:20]', size=8))
    wanted = net.apply({'params': params}, net.input.normalise(images))
    np.testing.assert_allclose(np.load(path), wanted, rtol=1e-5, atol=1e-6)
    capsys.readouterr()
    assert command.main([*flags, '--endpoints=features', '--member=4']) == 2
    assert 'has the members 0..3' in capsys.readouterr().err


def test_images_of_a_run_are_as_it_made_them(tmp_path):
    """Of another size than its net declares, and fitted in another way."""
    from tests import runs
    from tljax import experiment

    c = runs.run(endpoint='hidden1', steps=2, evaluate_every=0)
    c.data.update(size=6, fit='squash')
    experiment.run(c, tmp_path / 'run')
    where = {'net': None, 'dataset': runs.DIGITS, 'split': 'train[:5]', 'root': tmp_path / 'store'}
    found = [
        features.extract(str(tmp_path / 'run'), endpoints=('hidden1',), **where, **changes)
        for changes in ({}, {'size': 6, 'fit': 'squash'})
    ]
    assert found[0].folder == found[1].folder
    with pytest.raises(ValueError, match=r'hidden1/kernel is .*36, 24.* there and .*64, 24'):
        features.extract(str(tmp_path / 'run'), endpoints=('hidden1',), **where, size=8)


def test_a_run_that_reads_an_earlier_endpoint(tmp_path):
    """It has no layers behind that endpoint, and none are asked for."""
    from tests import runs
    from tljax import experiment, initial

    run = tmp_path / 'run'
    experiment.run(runs.run(endpoint='hidden1', steps=2, evaluate_every=0), run)
    assert list(initial.trained(run)[0]['encoder']) == ['hidden1']
    where = {'net': None, 'dataset': runs.DIGITS, 'split': 'train[:5]', 'root': tmp_path / 'store'}
    found = features.extract(str(run), endpoints=('hidden1',), **where)
    assert found.arrays['hidden1'].shape == (5, 24)
    with pytest.raises(ValueError, match=r'dense/bias is absent there and \[16\] here; give its'):
        features.extract(str(run), endpoints=('hidden1', 'features'), **where)
