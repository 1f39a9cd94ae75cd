"""Auxiliary heads: what they add to the loss, and that they add nothing else."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import runs
from tests.nets import published
from tljax import config as configs
from tljax import experiment, export, initial, nets, partition
from tljax.losses.classification import cross_entropy
from tljax.methods import supervised
from tljax.methods.networks import Classifier, encoder
from tljax.nets import pretrained
from tljax.nets.backbone import Input, run
from tljax.nets.norm import BatchNorm
from tljax.nets.pretrained import files
from tljax.prepare import prepare
from tljax.types import Spec

HP = {'label_smoothing': 0.1}


class Head(nn.Module):
    classes: int
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.classes, name='fc')(BatchNorm(name='norm')(x))


class Net(nn.Module):
    """Two layers, with a head on the first."""

    dtype: str = 'float32'
    input: Input = Input(8, 1, (0.5,), (0.5,))
    endpoints = ('low', 'features')
    auxiliary = {'aux': ('low', Head)}  # noqa: RUF012

    @nn.compact
    def __call__(self, x, since=None, until='features'):
        low, high = (nn.Dense(7, name=name) for name in ('low', 'high'))
        stages = {
            'low': lambda x: nn.tanh(low(x.reshape(len(x), -1))),
            'features': lambda x: nn.tanh(high(x)),
        }
        return run(stages, x, since, until)


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(nets.BACKBONES, 'toy', Net)


def config(weight=0.3, **changes):
    options = {'net': {'name': 'toy'}, 'options': {'auxiliary': weight}, 'evaluate_every': 0}
    return configs.checked(runs.run(**options | changes))


def test_loss_by_hand():
    """The classifier's cross entropy, and 0.3 of the head's, which is normalised by the batch."""
    ready = prepare(config())
    params, mutable = jax.tree.map(lambda leaf: leaf[0], ready.values)
    images = np.random.RandomState(0).randint(0, 256, (6, 8, 8, 1)).astype(np.uint8)
    label = jnp.arange(6) % 5
    (player,) = ready.method.phases[0].players
    batch = {'source': {'image': images, 'label': label}}
    trained = partition.select(params, player.trains)
    live = partition.lend(mutable, partition.trained_modules(params, mutable, trained))
    value, (metrics, new) = player.loss(params, live, batch, HP, jax.random.key(0))
    classifier = Classifier.build(ready.config, ready.spec)
    found, _ = classifier.layers(params, {}, images, ('low', 'features'))
    head, aux = params['head'], params['aux']
    logits = found['features'] @ head['kernel'] + head['bias']
    low = found['low']
    normed = (low - low.mean(0)) / np.sqrt(low.var(0) + 1e-5)
    aside = cross_entropy(normed @ aux['fc']['kernel'] + aux['fc']['bias'], label, 0.1)
    assert metrics['auxiliary'] == pytest.approx(float(aside), rel=1e-4)
    assert value == pytest.approx(float(cross_entropy(logits, label, 0.1) + 0.3 * aside), rel=1e-4)
    (moved,) = (x for path, x in partition.flat(new['aux']).items() if path.endswith('norm/mean'))
    assert np.abs(moved).min() > 0


def test_a_run_trains_the_heads_and_predicts_without_them(tmp_path):
    """With the weights of an earlier run's file they go on; in it is what the source would have."""
    experiment.run(config(steps=10), tmp_path / 'first')
    (line,) = runs.lines(tmp_path / 'first')
    assert {'model/loss', 'model/auxiliary'} < set(line['train'])
    found = export.to_file(tmp_path / 'first', tmp_path / 'w.safetensors')
    assert found == (('encoder', 'head', 'aux'), ())
    start = {'from': f'file:{tmp_path}/w.safetensors', 'load': 'encoder|aux'}
    ready = prepare(config(init=configs.default().init.to_dict() | start))
    trained, values = initial.trained(tmp_path / 'first'), ready.values
    for role in ('encoder', 'aux'):
        jax.tree.map(np.testing.assert_array_equal, trained[0][role], values[0][role])
    params, mutable = jax.tree.map(lambda leaf: leaf[0], values)
    images = np.zeros((2, 8, 8, 1), np.uint8)
    without = {role: tree for role, tree in params.items() if role != 'aux'}
    logits = [ready.method.predict(p, mutable, images)['logits'] for p in (params, without)]
    np.testing.assert_array_equal(*logits)


@pytest.mark.parametrize(
    ('name', 'size', 'roles'), [('googlenet', 64, ['aux1', 'aux2']), ('inception_v3', 299, ['aux'])]
)
def test_of_published_nets(name, size, roles):
    c = config(net={'name': name})
    spec = Spec((size, size, 3), ('a', 'b', 'c'))
    method = supervised.build(c, spec, lambda steps: None, auxiliary=0.3)
    params, mutable = jax.eval_shape(partial(method.init, spec=spec), jax.random.key(0))
    assert set(params) == {'encoder', 'head', *roles}
    batch = {'source': {'image': jnp.zeros((2, *spec.image)), 'label': jnp.zeros(2, int)}}
    (player,) = method.phases[0].players
    value, _ = jax.eval_shape(player.loss, params, mutable, batch, HP, jax.random.key(0))
    assert value.shape == ()


def test_published_values_but_those_of_other_classes(tmp_path):
    arrays = published.weights(published.golden('googlenet')[0])
    files.write(tmp_path / 'w.safetensors', arrays)
    c, spec = config(net={'name': 'googlenet'}), Spec((64, 64, 3), ('a', 'b', 'c'))
    method = supervised.build(c, spec, lambda steps: None, auxiliary=0.3)
    shapes = jax.eval_shape(partial(method.init, spec=spec), jax.random.key(0))
    where = f'file:{tmp_path}/w.safetensors'
    take = {'take': 'encoder|aux*/conv|aux*/fc1'}
    params, stats = pretrained.read(where, encoder(c), *shapes, **take)
    np.testing.assert_array_equal(params['aux2/fc1/kernel'], arrays['aux2.fc1.weight'].T)
    assert 'aux1/batch_stats/conv/norm/mean' in stats
    assert not any('fc2' in path or path.startswith('head') for path in params)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'net': {'name': 'lenet'}}, 'options.auxiliary: LeNet has no auxiliary heads'),
        ({'weight': -1.0}, 'options.auxiliary is -1.0; expected a number, 0 or more'),
        (
            {'trains': 'head', 'cache_prefix': True},
            "'low', and the encoder computes only feat",
        ),
        (
            {'net': {'name': 'googlenet'}, 'endpoint': 'mixed4c'},
            "reads 'mixed4d', and the encoder computes only stem, .* or a later endpoint",
        ),
        (
            {'net': {'name': 'inception_v3', 'input': {'size': 96}}},
            'maps of 17 x 17 or more, as of images of 299 pixels .*, and not of 4 x 4',
        ),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        prepare(config(**changes))
