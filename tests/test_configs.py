"""Every file in configs/ says what it is, and runs when shrunk."""

import importlib.util
import math
import re
import shlex
from pathlib import Path

import jax
import numpy as np
import pytest

from launch import train
from tests import runs
from tljax import config as configs
from tljax import study
from tljax.data import sources
from tljax.methods.networks import encoder
from tljax.nets import pretrained
from tljax.nets.apply import variables

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / 'configs').glob('*.py'))
COMMAND = re.compile(r'^ *(python launch/train\.py (?:.*\\\n)*.*)$', re.MULTILINE)
# What a docstring has to have, and how it begins there.
PARTS = {
    'what it is of': r'^ *(Paper|Task): \S',
    'the command': r'^ *python launch/train\.py --config configs/{name}\.py',
    'the expected numbers with their spread': r'^ *Expected: (.|\n)*?\d ± \d',
    'the time it takes': r'^ *Time: .*\d ?(s|min|h)\b',
}
# Nets keep their kind and become small.
SMALL = {
    'lenet': {'widths': (4, 6)},
    'resnet': {'widths': (8, 8)},
    'mlp': {'widths': (8,)},
    'imagenet_resnet': {'depth': 18, 'input': {'size': 32}},
}
CLASSES = 10


def load(file: Path):
    spec = importlib.util.spec_from_file_location(f'config_{file.stem}', file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_docstring_says_what_to_run_and_to_expect(file):
    text = load(file).__doc__
    parts = {part: pattern.replace('{name}', file.stem) for part, pattern in PARTS.items()}
    lacking = {p: r for p, r in parts.items() if not re.search(r, text, re.MULTILINE)}
    assert not lacking, f'the docstring of {file.name} lacks {lacking}'


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_commands_of_the_docstring_are_understood(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    for command in COMMAND.findall(load(file).__doc__):
        argv = shlex.split(command.replace('\\\n', ' '))
        config, workdir = train.parse(argv[1:])
        configs.checked(config)
        assert workdir.parts[0] == 'runs'


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_shrunk_config_runs(file, tmp_path):
    config = shrunk(configs.checked(load(file).get_config()), tmp_path)
    directory = tmp_path / 'run'
    found = study.run(config, directory)
    assert (directory / 'report.html').stat().st_size > 10_000
    arms = {'': found}
    if config.runs:
        arms = {name: runs.results(directory / name) for name in config.runs}
        assert {row['arm'] for row in found['comparison']} == set(config.compare.arms)
        assert all(0 <= row['mean'] <= 1 for row in found['comparison'])
    for name, results in arms.items():
        assert results['step'] == [max(results['step'])] * len(results['members'])
        for scores in results['scores'].values():
            assert all(0 <= value <= 1 for value in scores['accuracy'])
            assert all(math.isfinite(value) for value in scores['loss'])
        assert runs.lines(directory / name)


def shrunk(config, folder: Path):
    """A config with few steps, members and images, and a small net of the same kind."""
    for run in (config, *config.runs.values()):
        shrink(run)
    config.block, config.data.wrap = 60, True
    config.features.root = str(folder / 'features') if config.features.root else ''
    net = encoder(config)
    wanted = net.input
    side, channels = config.data.size or wanted.size, config.data.channels or wanted.channels
    images = np.random.RandomState(0).randint(0, 256, (20 * CLASSES, side, side, channels))
    labels = np.arange(len(images)) % CLASSES
    for run in (config, *config.runs.values()):
        if pretrained.is_published(run.get('init', {}).get('from', '')):
            run.init['from'] = f'file:{untrained(net, images.shape[1:], folder)}'
    tables = {}
    for split in ('train', 'val', 'test'):
        tables |= {f'{split}_image': images.astype(np.uint8), f'{split}_label': labels}
        for task in {*config.data.evaluate.test.tasks} - {'label'}:
            tables[f'{split}_label_{task}'] = labels % 3
    np.savez(folder / 'toy.npz', classes=np.array([str(c) for c in range(CLASSES)]), **tables)
    for run in (config, *config.runs.values()):
        for place in ('streams', 'evaluate'):
            for stream in run.get('data', {}).get(place, {}).values():
                if 'dataset' in stream:
                    stream.dataset = f'npz:{folder / "toy.npz"}'
    return config


def untrained(net, image, folder: Path) -> Path:
    """A file in place of a net's published weights."""
    if (file := folder / 'w.safetensors').exists():
        return file
    params, mutable = variables(net, jax.random.key(0), np.zeros((2, *image), np.float32))
    pretrained.export(file, net, {'encoder': params}, {'encoder': mutable})
    return file


def shrink(run) -> None:
    """Shrinks what a config, or the changes of one run of a study, sets."""
    for key, most in (('steps', 2), ('evaluate_every', 0), ('save_every', 0)):
        if key in run:
            run[key] = min(run[key], most)
    if 'optimizer' in run:
        run.optimizer.warmup = min(run.optimizer.get('warmup', 0), 1)
    for axis, values in run.get('members', {}).items():
        few = [(2, 3), values][axis != 'labels_per_class'] if values else ()
        run.members[axis] = tuple(few[:2])
    if 'net' in run:
        run.net.update(SMALL.get(run.net.name, {}))
    for stream in run.get('data', {}).get('streams', {}).values():
        for key, most in (('batch', 8), ('labels_per_class', 2)):
            if key in stream:
                stream[key] = min(stream[key], most)


def test_a_target_of_few_classes_is_one_word_of_the_argument():
    adapt = load(ROOT / 'configs/adapt.py')
    c = adapt.get_config('dann,tfds:mnist,tfds:usps,only=0+4')
    target = (c.runs.dann.data.streams.target, c.runs.oracle.data.streams.source)
    held = (c.data.evaluate.test, c.data.evaluate.target)
    assert all(stream.only == ('0', '4') for stream in (*target, *held))
    assert c.data.streams.source.only == c.data.evaluate.val.only == ()
    for wrong in ('only=', 'only=0++4', 'few'):
        with pytest.raises(
            ValueError, match='is not METHOD,SOURCE,TARGET, with flip, full, sampled'
        ):
            adapt.get_config(f'dann,tfds:mnist,tfds:usps,{wrong}')


@pytest.mark.parametrize(
    ('names', 'taken', 'labels'),
    [
        (('folder:pacs/photo', 'file:a/net-1.th'), (), ['photo', 'net_1']),
        (('xian:../awa2#wv', 'hf:a/vit.in1k'), (), ['awa2_wv', 'vit']),
        (('folder:/d/a/photo', 'folder:/d/b/photo'), (), ['a_photo', 'b_photo']),
        (('tfds:mnist:3.0.1', 'tfds:kmnist:3.0.1'), (), ['mnist', 'kmnist']),
        (('tfds:mnist:3.0.1', 'tfds:mnist:3.0.2'), (), ['mnist', 'mnist_2']),
        (('folder:a/x', 'npz:a/x.npz', 'folder:x'), (), ['x', 'x_2', 'x_3']),
        (('folder:/d/office/test', 'folder:val'), ('test', 'val'), ['office_test', 'val_2']),
        (('folder:a/x', 'folder:b/x', 'folder:a_x'), (), ['x', 'b_x', 'a_x']),
    ],
)
def test_labels_tell_names_apart(names, taken, labels):
    assert configs.labels(names, taken) == labels


def test_probe_tests_elsewhere_beside_the_test_set():
    probe = load(ROOT / 'configs/probe.py')
    elsewhere = ('folder:/d/office/test', 'folder:/d/a/photo', 'folder:/d/b/photo', 'folder:/d/art')
    net = '{"name": "lenet"}'
    c = probe.get_config(','.join(('file:w.npz', 'folder:/d/mine', *elsewhere, net)))
    names = ('test', 'office_test', 'a_photo', 'b_photo', 'art')
    found = {name: held.dataset for name, held in c.data.evaluate.items()}
    assert found == dict(zip(names, ('folder:/d/mine', *elsewhere), strict=True))


def test_sources_of_one_name_are_arms_of_their_own():
    sources = load(ROOT / 'configs/sources.py')
    c = sources.get_config('tfds:mnist,folder:/d/a/photo+folder:/d/b/photo+tfds:scratch:1.0.0')
    assert c.compare.arms == ('scratch', 'a_photo', 'b_photo', 'scratch_2')
    assert c.runs.scratch == configs.ConfigDict()
    assert c.runs.on_b_photo.data.streams.source.dataset == 'folder:/d/b/photo'
    assert c.runs.b_photo.init['from'] == 'on_b_photo'


def test_embeddings_of_one_name_are_arms_of_their_own():
    zero_shot = load(ROOT / 'configs/zero_shot.py')
    c = zero_shot.get_config(
        'sklearn:digits,eszsl,words:a/v.txt|words:b/v.txt|words:a/v.txt+csv:c.csv'
    )
    assert c.compare.arms == ('eszsl_a_v', 'eszsl_b_v', 'eszsl_a_v_c')
    assert c.runs.eszsl_b_v.data.embeddings == ('words:b/v.txt',)


@pytest.mark.parametrize(
    ('files', 'split'),
    [
        (('train/a/0.png', 'val/a/0.png'), 'val'),
        (('train/a/0.png', 'Validation/a/0.png'), 'val'),
        (('train/a/0.png', 'valid/a/0.png', 'Test/a/0.png'), 'test'),
        (('train/0.png', 'val/0.png'), 'test'),  # classes of these names
        (('train/a/0.png', 'val/a/0.png', 'labels.csv:0.png'), 'test'),
        (('train/0.png', 'labels.csv:train/0.png,dev/0.png'), 'val'),
        ((), 'test'),
    ],
)
def test_test_split_is_one_that_the_folder_has(files, split, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    for file in files:
        name, _, images = file.partition(':')
        path = tmp_path / 'set' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [f'{image},{i}' for i, image in enumerate(images.split(','))]
        path.write_text('\n'.join(['image,kind', *rows]))
    assert sources.test_split('folder:~/set') == split
    assert sources.test_split(f'folder:{tmp_path}/set') == split


def test_flags_reach_what_a_run_of_a_study_does_not_name_yet():
    file = ROOT / 'configs/one_shot.py'
    parse = lambda *changes: train.parse(
        ['train.py', f'--config={file}:sklearn:digits,triplet', '--workdir=x', *changes]
    )[0]
    found = parse(
        '--config.runs.triplet.options.mining=semi',
        '--config.runs.triplet.hparams.rate=0.5',
        *('--config.steps', '7'),
    )
    assert found.runs.triplet.options.mining == 'semi'
    assert found.runs.triplet.hparams.rate == 0.5
    assert found.steps == 7
    assert 'options' not in found.runs.frozen
    whole = configs.checked(found)
    assert configs.merged(whole, whole.runs.triplet).options.mining == 'semi'
    wrong = parse('--config.runs.triplet.hparms.rate=0.5')
    with pytest.raises(ValueError, match=r"'hparms'.*did you mean 'hparams'"):
        configs.checked(wrong)
