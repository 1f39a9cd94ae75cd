"""Soft sharing: what each module computes, and how tasks train by it."""

import jax
import numpy as np
import pytest
from scipy.special import expit, softmax

from tests import toys
from tests.test_methods import NORMED, config_for, fit, prepared_for
from tests.test_multitask import SPEC
from tljax import config as configs
from tljax import nets, partition
from tljax.nets import pretrained
from tljax.nets.apply import variables
from tljax.prepare import build_method, prepare
from tljax.types import Spec

TASKS = ('one', 'two', 'three')
IMAGES = np.random.RandomState(0).rand(5, 8, 8, 1).astype(np.float32)


def made(name, net=None, seed=0, **options):
    """The module, and its variables at the images."""
    net = net or nets.build_backbone('mlp', widths=(6,), dense=4)
    module = nets.build_sharing(name, net, TASKS, **options)
    params, mutable = variables(module, jax.random.key(seed), IMAGES)
    return module, {'params': params, **mutable}


def test_units_of_one_and_zero_are_separate_nets():
    net = nets.build_backbone('resnet', widths=(4,), input=nets.Input(8, 1))
    module, values = made('cross_stitch', net, own=1.0)
    found, after = module.apply(values, IMAGES, mutable=['batch_stats'])
    assert list(found) == list(TASKS)
    for task, features in found.items():
        own = {kind: tree[f'{task}_net'] for kind, tree in values.items()}
        alone, stats = net.apply(own, IMAGES, mutable=['batch_stats'])
        np.testing.assert_allclose(features, alone, 1e-5, 1e-6)
        toys.close(after['batch_stats'][f'{task}_net'], stats['batch_stats'], 1e-5)


def test_units_mix_channels_as_by_hand():
    module, values = made('cross_stitch')
    units = values['params']['hidden1_stitch']
    assert units.shape == (3, 3, 6)
    np.testing.assert_allclose(units[..., 2], np.full((3, 3), 0.05) + 0.85 * np.eye(3), 1e-5)
    random = np.random.RandomState(1)
    drawn = {
        f'{e}_stitch': random.randn(*values['params'][f'{e}_stitch'].shape)
        for e in module.endpoints
    }
    params = {**values['params'], **drawn}
    nets_of = [params[f'{task}_net'] for task in TASKS]
    layer = lambda x, dense: np.maximum(x @ dense['kernel'] + dense['bias'], 0)
    x = [layer(IMAGES.reshape(5, -1), own['hidden1']) for own in nets_of]
    x = np.einsum('snc,tsc->tnc', x, drawn['hidden1_stitch'])
    x = [layer(one, own['dense']) for one, own in zip(x, nets_of, strict=True)]
    x = np.einsum('snc,tsc->tnc', x, drawn['features_stitch'])
    found = module.apply({'params': params}, IMAGES)
    np.testing.assert_allclose(list(found.values()), x, 1e-4, 1e-4)


def test_one_expert_is_hard_sharing():
    module, values = made('mmoe', experts=1)
    alone = module.net.apply({'params': values['params']['expert1']}, IMAGES)
    for features in module.apply(values, IMAGES).values():
        np.testing.assert_allclose(features, alone, 1e-6)


def test_gates_mix_experts_as_by_hand():
    module, values = made('mmoe', experts=2)
    params = values['params']
    for task in TASKS:
        np.testing.assert_array_equal(params[f'{task}_gate']['kernel'], np.zeros((64, 2)))
        params[f'{task}_gate'] = {'kernel': np.random.RandomState(len(task)).randn(64, 2)}
    experts = [module.net.apply({'params': params[f'expert{i}']}, IMAGES) for i in (1, 2)]
    for task, features in module.apply(values, IMAGES).items():
        gate = softmax(IMAGES.reshape(5, -1) @ params[f'{task}_gate']['kernel'], axis=1)
        wanted = gate[:, :1] * experts[0] + gate[:, 1:] * experts[1]
        np.testing.assert_allclose(features, wanted, 1e-4, 1e-5)


def test_masks_are_those_by_hand():
    module, values = made('mtan')
    params = values['params']
    shared = module.net.apply({'params': params['shared']}, IMAGES, until=module.endpoints)
    norm = lambda x: x / np.sqrt(1 + 1e-5)  # with the initial statistics
    for task, found in module.apply(values, IMAGES).items():
        own = None
        for name in module.endpoints:
            kernel = {
                k: v['kernel'] for k, v in params[f'{task}_{name}_mask'].items() if 'kernel' in v
            }
            x = p = np.asarray(shared[name])
            if own is not None:
                carried = np.maximum(norm(own @ kernel['carried']), 0)
                x = np.concatenate([p, carried], -1)
            own = expit(norm(np.maximum(norm(x @ kernel['hidden']), 0) @ kernel['mask'])) * p
        np.testing.assert_allclose(found, own, 1e-4, 1e-5)


def test_masks_fit_maps_of_every_size():
    net = nets.build_backbone('lenet', widths=(3, 4), kernel=3, padding='SAME', dense=5)
    module, values = made('mtan', net)
    for until, shape in (('conv1', (5, 4, 4, 3)), ('conv2', (5, 2, 2, 4)), ('features', (5, 5))):
        shared = net.apply({'params': values['params']['shared']}, IMAGES, until=until)
        for found in module.apply(values, IMAGES, until=until).values():
            assert found.shape == shape
            assert (np.abs(found) <= np.abs(shared)).all()
            assert (np.abs(found) > 0)[np.abs(shared) > 1e-6].all()


@pytest.mark.parametrize(
    ('sharing', 'balancer', 'own'),
    [('cross_stitch', 'pcgrad', 'stitch'), ('mmoe', 'gradnorm', 'gate'), ('mtan', 'equal', 'mask')],
)
def test_all_that_is_shared_trains_in_a_run(sharing, balancer, own, tmp_path):
    options = {'sharing': sharing, 'balancer': balancer}
    ready = prepared_for('multitask', seeds=(0,), options=options)
    before = partition.flat(jax.tree.map(np.array, ready.values[0]))
    after = partition.flat(fit(ready, tmp_path)[0])
    assert any(own in path for path in after)
    for path, leaf in after.items():
        assert np.isfinite(leaf).all()
        assert (leaf != before[path]).any(), f'{path} stayed'


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'sharing': 'cross_stich'}, "unknown sharing .*did you mean 'cross_stitch'"),
        ({'sharing': 'mtan', 'branch': 'hidden1'}, 'does not go with options.branch'),
        ({'sharing': 'mmoe', 'at': 'features', 'balancer': 'mgda'}, "with options.at='features'"),
        ({'sharing': 'mtan', 'sharing_options': {'experts': 2}}, "option of sharing 'mtan'"),
        ({'sharing_options': {'experts': 2}}, 'hard sharing has no options'),
    ],
)
def test_what_cannot_be_combined_is_told(options, message):
    with pytest.raises(ValueError, match=message):
        built(options)


def built(options, tasks=SPEC, since=None):
    spec = Spec((8, 8, 1), ('a', 'b'), since, tasks=tasks)
    return build_method(config_for('multitask', options=options), spec)


def test_soft_sharing_needs_whole_images_and_several_tasks():
    with pytest.raises(ValueError, match='does not go with cache_prefix'):
        prepared_for('multitask', options={'sharing': 'mtan'}, trains='head', cache_prefix=True)
    with pytest.raises(ValueError, match='does not go with a single task'):
        built({'sharing': 'mmoe'}, {'label': SPEC['label']})
    with pytest.raises(ValueError, match='experts is 0; expected 1 or more'):
        built({'sharing': 'mmoe', 'sharing_options': {'experts': 0}}).init(
            jax.random.key(0), Spec((8, 8, 1), ('a', 'b'), tasks=SPEC)
        )


def test_weights_of_one_net_are_not_silently_left_out(tmp_path):
    net = nets.build_backbone('resnet', widths=(4,), input=nets.Input(8, 1))
    params, stats = variables(net, jax.random.key(0), IMAGES)
    pretrained.export(tmp_path / 'w.safetensors', net, {'encoder': params}, {'encoder': stats})
    c = config_for('multitask', options={'sharing': 'mtan'}, net=NORMED)
    c.init['from'] = f'file:{tmp_path / "w.safetensors"}'
    with pytest.raises(ValueError, match='none of its layers is in this run'):
        prepare(configs.checked(c))
