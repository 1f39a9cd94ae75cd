"""Adaptation by closed forms: statistics of the target, and aligned features under a probe."""

from functools import partial

import flax.linen as nn
import jax
import numpy as np
import pytest

from tests import toys
from tests.test_methods import config_for, fit, prepared_for
from tljax import nets
from tljax.kernels import Gaussians
from tljax.nets.backbone import Input, run
from tljax.nets.norm import BatchNorm
from tljax.prepare import prepare
from tljax.shallow import alignment, linear, ridge

LAYERS = ('low', 'middle', 'high')


class Normed(nn.Module):
    """Dense layers, each normalised: what comes into a norm depends on all before it."""

    input: Input = Input(8, 1)
    endpoints = ('features',)

    @nn.compact
    def __call__(self, x, since=None, until='features'):
        def features(x):
            x = x.reshape(len(x), -1)
            for name in LAYERS:
                x = nn.Dense(5, use_bias=False, name=name)(x)
                x = nn.tanh(BatchNorm(name=f'{name}_norm')(x))
            return x

        return run({'features': features}, x, since, until)


def statistics_by_hand(params, images):
    """Each norm's (mean, variance) over all of the images, with those before it normalised so."""
    x = (images.reshape(len(images), -1) / 255 - 0.5) / 0.5
    found = {}
    for name in LAYERS:
        x = x @ np.float64(params[name]['kernel'])
        found[name] = mean, var = x.mean(0), x.var(0)
        norm = params[f'{name}_norm']
        x = np.tanh((x - mean) / np.sqrt(var + 1e-5) * norm['scale'] + norm['bias'])
    return found


def test_adabn_takes_the_statistics_of_the_whole_target(tmp_path, monkeypatch):
    """Of each member's own network, block by block, and leaves what it was trained to."""
    monkeypatch.setitem(nets.BACKBONES, 'normed', Normed)
    ready, seen = prepared_for('adabn', net={'name': 'normed'}, block=50), {}

    def watch(params, mutable, phase):
        seen[phase.name] = jax.tree.map(np.asarray, (params, mutable))
        return toys.probe(params, mutable, phase)

    parts = (ready.method, ready.streams, ready.members)
    toys.fit(tmp_path, *parts, values=ready.values, evaluate=watch, **ready.options._asdict())
    (before, running), (params, mutable) = seen['train'], seen['adapt']
    toys.same(params, before)
    images = np.asarray(ready.streams['target'].image)
    for member in (0, 1):
        encoder, own, old = (
            jax.tree.map(lambda x: x[member], tree['encoder'])
            for tree in (params, mutable, running)
        )
        for name, (mean, var) in statistics_by_hand(encoder, images).items():
            found = own['batch_stats'][f'{name}_norm']
            np.testing.assert_allclose(found['mean'], mean, 1e-4, 1e-5)
            np.testing.assert_allclose(found['var'], var, 1e-4, 1e-5)
            assert np.abs(old['batch_stats'][f'{name}_norm']['var'] - var).max() > 0.01


# The options, the alignment of features x and y, and the kernel of its maps.
MEDIAN = Gaussians('median', 1)
ALIGNED = {
    'coral_features': ({'strength': 0.3}, partial(alignment.coral, strength=0.3), None),
    'subspace_alignment': ({'dimensions': 4}, partial(alignment.subspaces, dimensions=4), None),
    'tca': (
        {'dimensions': 4, 'strength': 0.3, 'examples': 30},
        partial(alignment.tca, dimensions=4, strength=0.3, kernel=MEDIAN),
        MEDIAN,
    ),
}
PENALTY = 0.01  # of the mean loss


def scale(x):
    """What one dimension of features varies by."""
    return float(np.sqrt(np.var(x, axis=0).mean()))


@pytest.mark.parametrize('name', ALIGNED)
def test_predictions_are_of_aligned_features_by_a_probe_on_the_sources(name, tmp_path):
    """Of the 30 examples that a member draws from, beside one of 60, and of its encoder."""
    options, align, kernel = ALIGNED[name]
    c = config_for(name, options={**options, 'strengths': (PENALTY,)}, steps=0)
    c.members.update(seed=(0, 1), labels_per_class=(6, 12))
    c.data.streams.target.sample = 30
    ready = prepare(c)
    values = jax.tree.map(lambda x: x[0], fit(ready, tmp_path))
    features = lambda images: np.asarray(ready.method.predict(*values, images)['features'])
    source, target = (ready.streams[one] for one in ('source', 'target'))
    rows = source.order[0][:30]
    x, y = (features(np.asarray(of.image)[at]) for of, at in ((source, rows), (target, slice(30))))
    unit = 1 / scale(x)
    found = align(unit * x, unit * y)
    train = np.asarray(alignment.transform(found.source, unit * x, kernel))
    strengths = np.array([len(train) * PENALTY])
    model = ridge.fit(train / scale(train), source.source.labels[rows], strengths, classes=5)
    held = ready.held['test'].image[:20]
    moved = np.asarray(alignment.transform(found.target, unit * features(held), kernel))
    wanted = linear.logits(model, moved / scale(train))[0]
    np.testing.assert_allclose(ready.method.predict(*values, held)['logits'], wanted, atol=2e-4)
