"""configs/adapt.py and configs/adapt_pretrained.py: what their arguments make of a pair of sets."""

import jax
import numpy as np
import pytest
from PIL import Image

from configs import adapt, adapt_pretrained
from tests import runs
from tests.data import toys
from tests.test_configs import shrink
from tljax import config as configs
from tljax import experiment, study
from tljax.prepare import build_method, parameter_table
from tljax.types import Spec


def augments(c, method: str) -> set[str]:
    """Of all training streams of a method and its twins."""
    streams = (c.data.streams.source, c.runs[method].data.streams.target)
    return {stream.augment for stream in (*streams, c.runs.oracle.data.streams.source)}


def test_only_who_asks_for_it_has_images_mirrored():
    for pair in ('tfds:svhn_cropped,tfds:mnist', 'folder:mnist,folder:usps'):
        assert not any('flip' in one for one in augments(adapt.get_config(f'dann,{pair}'), 'dann'))
    mirrored = adapt.get_config('dann,folder:a,folder:b,full,flip')
    assert mirrored.steps == adapt.FULL
    assert augments(mirrored, 'dann') == {'flip|shift:3'}
    with pytest.raises(ValueError, match='each once or not'):
        adapt.get_config('dann,folder:a,folder:b,only=1,only=2')


@pytest.mark.parametrize('source', ['tfds:mnist', 'tfds:mnist_m/textures', 'folder:a'])
@pytest.mark.parametrize('target', ['tfds:mnist_m', 'tfds:svhn_cropped', 'tfds:usps', 'folder:b'])
def test_both_domains_are_augmented_alike(source, target):
    (one,) = augments(adapt.get_config(f'dann,{source},{target}'), 'dann')
    background = any(name in source + target for name in ('mnist_m', 'svhn'))
    assert one.startswith('crop:3,reflect' if background else 'shift:3')


def test_what_matches_features_has_dense_ones_on_mnist_m():
    c = configs.checked(adapt.get_config('all,tfds:mnist,tfds:mnist_m'))
    dense = {name: configs.merged(c, run).net.dense for name, run in c.runs.items()}
    assert {name for name, width in dense.items() if width} == set(adapt.ON_FEATURES)
    for name in adapt.ON_FEATURES:
        assert configs.merged(c, c.runs[name]).head.to_dict() == {'name': 'linear'}
    assert c.head.name == 'mlp'


def test_svhn_and_mnist_are_digits_of_one_form(tmp_path):
    for builder in (toys.SvhnCropped, toys.Mnist):
        toys.prepared(builder, tmp_path)
    c = configs.checked(adapt.get_config('dann,tfds:svhn_cropped,tfds:mnist'))
    c = configs.merged(c, c.runs.dann)
    shrink(c)
    c.data.data_dir, c.block = str(tmp_path), 20
    found = experiment.run(c, tmp_path / 'run')
    assert found['image'] == [32, 32, 3]
    assert 'tfds:mnist (test), all 40 examples' in found['protocol']


def test_the_sampled_protocol_is_of_two_sets():
    c = adapt.get_config('dann,tfds:mnist,tfds:usps,sampled')
    assert [c.data.streams.source.sample, c.runs.dann.data.streams.target.sample] == [2000, 1800]
    for target in ('tfds:mnist_m', 'folder:usps'):
        with pytest.raises(ValueError, match=f"'sampled' '{target}': there are tfds:mnist, tfds"):
            adapt.get_config(f'dann,tfds:mnist,{target},sampled')


def test_partial_adaptation_is_not_selected_by_a_score_that_wants_all_classes():
    of = lambda *extras: adapt.get_config(','.join(('dann,tfds:mnist,tfds:usps', *extras)))
    assert of('only=0+1').selection == 'last'
    assert of().selection == of('full').selection == 'information_maximisation'


def test_full_schedules_are_those_of_the_authors():
    of = lambda *extras: configs.checked(
        adapt.get_config(','.join(('all,tfds:mnist,tfds:usps', *extras)))
    )
    for c, steps, batch in ((of(), 6000, 64), (of('full'), 20_000, 128)):
        run = configs.merged(c, c.runs.mcd)
        assert (run.steps, run.data.streams.source.batch, run.data.streams.target.batch) == (
            steps,
            batch,
            batch,
        )
    assert [of('full').runs[name].steps for name in ('cdan_e', 'shot')] == [9400, 32_000]
    short, full = (configs.merged(c, c.runs.translation) for c in (of(), of('full')))
    assert (short.steps, short.data.streams.target.batch) == (4000, 16)
    assert (full.steps, full.data.streams.target.batch) == (20_000, 64)


def test_a_target_without_labels(tmp_path):
    """A plain folder: adapted to and selected on, while accuracy is of the source."""
    for name in ('source/a', 'source/b', 'target'):
        (tmp_path / name).mkdir(parents=True)
        for i in range(6):
            pixels = np.random.RandomState(i).randint(0, 256, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f'{i}.png')
    pair = f'folder:{tmp_path}/source,images:{tmp_path}/target'
    c = configs.checked(adapt.get_config(f'dann,{pair}'))
    assert set(c.data.evaluate) == {'val', 'target'} and set(c.runs) == {'source_only', 'dann'}
    shrink(c)
    for run in c.runs.values():
        run.steps = 4
    c.net = {'name': 'mlp', 'widths': (3,), 'dense': 4, 'input': {'size': 8, 'channels': 3}}
    c.update(steps=4, evaluate_every=2, block=8)
    results = study.run(configs.checked(c), tmp_path / 'study')
    assert results['stream'] == 'val'
    found = np.load(tmp_path / 'study/dann/figures/features.npz')
    assert (found['label'][found['target']] == -1).all()
    assert set(found['label'][~found['target']]) <= {0, 1}
    assert set(runs.results(tmp_path / 'study/dann')['scores']) == {'val'}
    with pytest.raises(ValueError, match=r'only=a: of images:.* no labels are known'):
        adapt.get_config(f'dann,{pair},only=a')
    backwards = configs.checked(adapt.get_config(f'dann,images:{tmp_path}/target,folder:b'))
    with pytest.raises(
        ValueError, match=r"stream 'source': images:.*target has no labels: give fo"
    ):
        experiment.run(configs.merged(backwards, backwards.runs.dann), tmp_path / 'backwards')


def table(config) -> dict[str, dict]:
    """Path -> row of the parameter table of a run, without data."""
    net = config.net.to_dict()
    image = (net['input']['size'],) * 2 + (net['input']['channels'],)
    count = {'source': 64, 'target': 64}
    spec = Spec(image, tuple('0123456789'), examples=count, rows=count)
    method = build_method(config, spec)
    values = jax.eval_shape(lambda: method.init(jax.random.key(0), spec))
    stacked = jax.tree.map(lambda x: np.broadcast_to(np.zeros(1), (1, *x.shape)), values[0])
    return {row['path']: row for row in parameter_table(config, method, stacked)}


@pytest.mark.parametrize('method', adapt.METHODS)
def test_every_method_is_built_for_digits(method):
    if method == 'sinkhorn':
        pytest.importorskip('ott')
    c = configs.checked(adapt.get_config(f'{method},tfds:mnist,tfds:mnist_m'))
    rows = table(configs.merged(c, c.runs[method]))
    assert any(row['trained_by'] for row in rows.values())


@pytest.mark.parametrize('method', ['adda', 'dan', 'mcd'])
def test_the_last_stage_of_a_net_is_moved_and_no_norm(method):
    net = '{"name": "imagenet_resnet", "depth": 18, "input": {"size": 32, "channels": 3}}'
    argument = f'file:w.safetensors,{method},folder:a,folder:b,{net}'
    c = configs.checked(adapt_pretrained.get_config(argument))
    one = configs.merged(c, c.runs[method])
    assert one.net.name == 'imagenet_resnet'
    rows = table(one)
    moved = {path: row['rate'] for path, row in rows.items() if row['trained_by']}
    encoders = {path for path in rows if path.split('/')[0] in ('encoder', 'target_encoder')}
    assert {path.split('/')[1] for path in encoders & moved.keys()} == {'stage4'}
    assert not any('norm' in path for path in encoders & moved.keys())
    for path in encoders & moved.keys():
        assert moved[path] == pytest.approx(0.1 * one.hparams.rate)
    if method == 'adda':
        own = {path for path in moved if path.startswith('target_encoder/')}
        assert own == {f'target_{path}' for path in moved if path.startswith('encoder/')}
        assert own
