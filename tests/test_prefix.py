"""A cached prefix is the uncached run."""

import jax
import numpy as np
import pytest

from tests import runs, toys
from tljax import config as configs
from tljax import experiment, features, partition, prefix, trunk
from tljax.methods import networks
from tljax.nets import pretrained
from tljax.nets.apply import variables
from tljax.nets.mlp import MLP
from tljax.prepare import prepare
from tljax.types import Spec


@pytest.mark.parametrize(
    ('trains', 'dropout', 'endpoint'),
    [
        ('head', 0.0, 'features'),
        ('encoder/dense|head', 0.0, 'hidden2'),
        ('encoder/hidden2', 0.0, 'hidden1'),
        ('head', 0.5, 'features'),
        # The encoder around its dropouts is trained in part, so they are on.
        ('encoder/dense|head', 0.5, None),
        ('encoder/hidden1/bias', 0.0, None),
    ],
)
def test_the_deepest_frozen_endpoint(trains, dropout, endpoint):
    """Nothing that is trained, or random, comes before the cut."""
    net, spec = MLP((6, 5), 4, dropout), Spec((8, 8, 1), ('a', 'b'))
    params, mutable = variables(net, jax.random.key(0), np.zeros((2, 8, 8, 1)))
    values = {'encoder': params, 'head': {'kernel': np.zeros((4, 2))}}, {'encoder': mutable}
    trained = partition.select(values[0], trains)
    if endpoint:
        assert prefix.deepest_frozen(net, spec, values, trained) == endpoint
    else:
        with pytest.raises(ValueError, match="'hidden1', is trained, or"):
            prefix.deepest_frozen(net, spec, values, trained)


def test_a_cached_run_is_the_uncached_one(tmp_path):
    """Two members with their own encoders and label counts, the encoder frozen in part."""
    changes = {'trains': 'encoder/dense|head', 'steps': 5, 'data.wrap': True}
    both = []
    for cache in (False, True):
        c = runs.run(cache_prefix=cache, **changes)
        c.members.seed, c.members.labels_per_class = (0, 1), (1, 4)
        both.append(toys.fit_config(tmp_path / str(cache), c))
    (plain, ours), (cached, theirs) = both
    assert cached.spec.since == 'hidden1'
    assert cached.streams['source'].image.shape[2:] == (24,)
    # The frozen layers are no part of what is trained and saved.
    frozen = trunk.leaves(cached.trunk)[0]
    assert frozen.keys() == {'encoder/hidden1/bias', 'encoder/hidden1/kernel'}
    toys.close(partition.flat(theirs.params) | frozen, ours.params, 1e-6)
    # And in evaluation.
    images, activations = (ready.held['test'].image for ready in (plain, cached))
    for m in range(4):
        params = jax.tree.map(lambda x: x[m], ours.params)
        a = plain.method.predict(params, {}, images[:50])['logits']
        b = cached.method.predict(params, {}, activations[m, :50])['logits']
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('root', ['', 'store'])
def test_members_of_one_trunk_share_its_activations(tmp_path, root, monkeypatch):
    """Published weights: one trunk and one copy of the activations for all members, and in steps
    no parameters of it; and the result is that of the run without a cache.
    """
    weights, trains = published(tmp_path), 'encoder|!encoder/hidden1|head'
    both, computed = [], []
    noted = lambda *args, **rest: computed.append(len(args[2].labels)) or real(*args, **rest)
    real = features.computed
    monkeypatch.setattr(features, 'computed', noted)
    for cache in (False, True):
        c = runs.run(cache_prefix=cache, trains=trains, steps=5, **{'data.wrap': True})
        c.init.update({'from': f'file:{weights}', 'load': 'encoder'})
        c.features.root = str(tmp_path / root) if root else ''
        c.members.seed, c.members.labels_per_class = (0, 1), (1, 4)
        both.append(toys.fit_config(tmp_path / str(cache), c))
    (plain, ours), (cached, theirs) = both
    assert cached.spec.since == 'hidden1'
    order = plain.streams['source'].order
    count = len(plain.streams['source'].source.labels) if root else len(np.unique(order))
    assert cached.streams['source'].image.shape == (count, 24)
    assert computed == [count, 299]
    kept = partition.flat(theirs.params)
    assert not any(path.startswith('encoder/hidden1') for path in kept)
    shared = trunk.leaves(cached.trunk)[0]
    assert all(leaf.shape[0] == 1 for leaf in cached.trunk.params.values())
    toys.close(kept | shared, ours.params, 1e-6)
    # What another run starts from, or predicts with, is whole again.
    trunk.write(tmp_path, cached.trunk)
    toys.same(trunk.leaves(trunk.read(tmp_path))[0], shared)
    (tmp_path / trunk.FILE).write_bytes(b'PK')
    with pytest.raises(ValueError, match=r'frozen\.npz cannot be read \(.*\); run the run anew'):
        trunk.read(tmp_path)


def published(folder, seed=7):
    """A file with weights of the net of `tests.runs`."""
    net = networks.encoder(runs.run())
    params, mutable = variables(net, jax.random.key(seed), np.zeros((2, 8, 8, 1)))
    pretrained.export(folder / 'w.safetensors', net, {'encoder': params}, {'encoder': mutable})
    return folder / 'w.safetensors'


def test_other_weights_than_a_run_began_with_are_refused(tmp_path):
    """Its activations would be of the new ones, and its predictions of the old."""
    c = runs.run(cache_prefix=True, trains='head', steps=2, evaluate_every=0)
    c.init['from'] = f'file:{published(tmp_path)}'
    experiment.run(configs.checked(c), tmp_path / 'run')
    (tmp_path / 'run' / 'results.json').unlink()
    experiment.run(configs.checked(c), tmp_path / 'run')
    (tmp_path / 'run' / 'results.json').unlink()
    published(tmp_path, seed=8)
    told = r'params/dense/kernel.* are no longer those that this run began with; bring back'
    with pytest.raises(ValueError, match=told):
        experiment.run(configs.checked(c), tmp_path / 'run')


def test_activations_that_take_too_much_are_refused_before_any_is_computed(monkeypatch):
    """1000 numbers of 32 bits for each of 299 test images, or of each for two members."""
    monkeypatch.setattr(features, 'computed', lambda *args, **rest: pytest.fail('computed'))
    c = runs.run(cache_prefix=True, trains='encoder/dense|head')
    c.net.widths, c.data.streams.source.labels_per_class = (1000,), 5
    c.data.resident_mb = 1
    told = r"'test' at 'hidden1', \[1000\] of {} examples, take {} MB, and data.resident_mb is {};"
    with pytest.raises(ValueError, match=told.format(299, 2, 1)):
        prepare(c)
    c.data.resident_mb, c.members.seed = 2, (0, 1)
    with pytest.raises(ValueError, match=told.format(598, 3, 2)):
        prepare(c)


def test_copies_of_the_encoder_begin_with_its_trunk():
    """A role with all the encoder's layers is cut with it, and put back with it."""
    layer = lambda seed: {'w': np.full((2, 3), seed, np.float32)}
    encoder = {'low': layer(1), 'high': layer(2)}
    params = {'encoder': encoder, 'teacher': encoder | {'high': layer(3)}, 'head': layer(4)}
    rest, cut = trunk.split((params, {}), 'low', ({'low/w'}, set()))
    assert cut.roles == ('encoder', 'teacher')
    assert partition.paths(rest[0]) == ['encoder/high/w', 'teacher/high/w', 'head/w']
    toys.same(partition.flat(rest[0]) | trunk.leaves(cut)[0], params)


def test_a_copy_that_is_trained_is_not_cut():
    net, spec = MLP((6, 5), 4), Spec((8, 8, 1), ('a', 'b'))
    params, mutable = variables(net, jax.random.key(0), np.zeros((2, 8, 8, 1)))
    values = {'encoder': params, 'teacher': params}, {'encoder': mutable, 'teacher': mutable}
    trained = partition.select(values[0], 'teacher/hidden2')
    assert prefix.deepest_frozen(net, spec, values, trained) == 'hidden1'


def test_members_of_several_trunks_keep_their_own():
    leaf = np.repeat([[1.0], [2.0], [1.0]], 4, axis=1)
    _, cut = trunk.split(({'encoder': {'w': leaf}, 'head': {'b': leaf}}, {}), 'w', ({'w'}, set()))
    np.testing.assert_array_equal(cut.index, [0, 1, 0])
    assert cut.params['w'].shape == (2, 4)
    np.testing.assert_array_equal(trunk.leaves(cut)[0]['encoder/w'], leaf)


def test_augmented_stream_is_refused():
    stream = toys.stream(augment=lambda key, image: image)
    with pytest.raises(ValueError, match="stream 'source' is augmented, so its activations change"):
        prefix.check(stream)
