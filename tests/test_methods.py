"""The battery: every method of the table initialises, trains three steps and predicts."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import runs
from tljax import config as configs
from tljax import loop, partition
from tljax.checkpoints import Checkpoints
from tljax.methods import METHODS
from tljax.prepare import build_method, prepare
from tljax.types import Spec

TRANSLATION = {'widths': (3, 4), 'blocks': 0, 'kernel': 3, 'patch_widths': (3,)}

NORMED = {'name': 'resnet', 'widths': (4,), 'input': {'size': 8, 'channels': 1}}

SEGMENTS = Path(__file__).parents[1] / 'configs/seven_segment.csv'
EMBEDDED = {'data.embeddings': (f'csv:{SEGMENTS}',)}

# What a method needs beyond a labelled 'source' and an unlabelled 'target', as config keys.
SETTINGS: dict[str, dict] = {
    'adabn': {'net': NORMED},
    'adda': {'options': {'widths': (6,)}},
    'ale': EMBEDDED,
    'cdan': {'options': {'widths': (6,)}},
    'cdan_e': {'options': {'widths': (6,), 'limit': 9, 'random_width': 8}},
    'conse': EMBEDDED,
    'cycada': {
        'steps': 4,
        'options': TRANSLATION | {'shares': (0.25,) * 4, 'pool': 0, 'discriminator_widths': (6,)},
    },
    'dann': {'options': {'widths': (6,)}},
    'dap': EMBEDDED,
    'dem': EMBEDDED | {'options': {'width': 6}},
    'devise': EMBEDDED,
    'drcn': {'options': {'widths': (4,), 'kernel': 3}},
    'eszsl': EMBEDDED | {'options': {'folds': 2}},
    'infonce': {'data.streams.source.draw': 'episode:5x1x1'},
    'matching': {'data.streams.source.draw': 'episode:4x2x3'},
    'mcd': {'options': {'inner': 2}},
    'multitask': {
        'options': {'balancer': 'mgda', 'at': 'features'},
        'data.streams.source.tasks': ('label', 'parity', 'ink'),
        'data.evaluate.test.tasks': ('label', 'parity', 'ink'),
    },
    'projection': EMBEDDED,
    'prototypical': {'data.streams.source.draw': 'episode:4x2x3'},
    'sae': EMBEDDED | {'options': {'folds': 2}},
    'shot': {'options': {'every': 1, 'source_share': 0.3}},
    'siamese': {'data.streams.source.draw': 'pairs:12'},
    'siamese_contrastive': {'data.streams.source.draw': 'pairs:12'},
    'sje': EMBEDDED,
    'supervised_contrastive': {'data.streams.source.draw': 'episode:4x2x2'},
    'subspace_alignment': {'options': {'dimensions': 4}},
    'tca': {'options': {'dimensions': 4, 'examples': 30}},
    'translation': {'options': TRANSLATION | {'source_share': 0.3, 'pool': 30}},
    'triplet': {'data.streams.source.draw': 'episode:4x2x2'},
    'wdgrl': {'options': {'widths': (6,), 'inner': 2}},
}
# The optional package without which a method says what to install.
PACKAGES = {'sinkhorn': 'ott'}
EMBEDDING = ('infonce', 'matching', 'prototypical', 'siamese', 'siamese_contrastive')
EMBEDDING += ('supervised_contrastive', 'triplet')
MOVING = ('adda', 'cycada', 'drcn', 'mcd', 'shot', *EMBEDDING)
# What has to move the encoder: with trains='head' it refuses, and trains what is given here.
NARROW = {name: {'trains': 'encoder/dense|head'} for name in MOVING}


def prepared_for(name: str, seeds=(0, 1), **changes):
    """A tiny run of a method, ready to fit."""
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name])
    c = config_for(name, **changes)
    c.members.seed = seeds
    return prepare(c)


def config_for(name: str, **changes):
    """The config of a tiny run of a method."""
    c = runs.run(
        **{'method': name, 'steps': 3, 'evaluate_every': 0} | SETTINGS.get(name, {}) | changes
    )
    c.data.streams.target = configs.stream(
        runs.DIGITS, classes=runs.NEW, batch=20, labelled=False, split='test'
    )
    return configs.checked(c)


def built(name: str, since: str | None = None, **changes):
    """The method alone, without data or values; `since` as if inputs were that cached endpoint."""
    return build_method(config_for(name, **changes), Spec((8, 8, 1), tuple('56789'), since))


@pytest.fixture(scope='module')
def fitted(tmp_path_factory):
    """`fitted(name, seeds)`: `(params, mutable)` of a method's tiny run, trained once."""

    @functools.cache
    def values(name, seeds):
        return fit(prepared_for(name, seeds), tmp_path_factory.mktemp('fit'))

    return values


def fit(prepared, directory):
    """`(params, mutable)` after all steps, by path, NumPy."""
    checkpoints = Checkpoints(directory / 'checkpoints')
    calls = loop.Calls(evaluate=lambda *_: {}, record=lambda line: None)
    values = jax.tree.map(np.array, prepared.values)
    run = (prepared.streams, prepared.members, values, checkpoints, prepared.options, calls)
    try:
        fitted = loop.fit(prepared.method, *run)
    finally:
        checkpoints.close()
    return tuple(jax.tree.map(np.asarray, part) for part in (fitted.params, fitted.mutable))


@pytest.mark.parametrize('name', METHODS)
@pytest.mark.parametrize('trains', [None, 'head'])
def test_three_steps_and_predict(name, trains, fitted, tmp_path):
    if trains and name in NARROW:
        with pytest.raises(ValueError, match="adapts the encoder, of which trains='head' leaves"):
            prepared_for(name, trains=trains)
    changes = NARROW.get(name, {'trains': trains}) if trains else {}
    prepared = prepared_for(name, **changes)
    before = partition.flat(jax.tree.map(np.array, prepared.values[0]))
    params, mutable = fit(prepared, tmp_path) if trains else fitted(name, (0, 1))
    after = partition.flat(params)
    assert {k: v.shape for k, v in after.items()} == {k: v.shape for k, v in before.items()}
    moved = {path for path in after if (after[path] != before[path]).any()}
    trained = {row['path'] for row in prepared.table if row['trained_by']}
    solved = any(not phase.steps for phase in prepared.method.phases)
    assert moved
    assert moved <= trained or solved, 'what no player trains has to stay as it was'
    if trains:
        frozen = 'encoder/hidden1/' if name in NARROW else 'encoder/'
        assert not any(path.startswith(frozen) for path in moved)
    for leaf in jax.tree.leaves((params, mutable)):
        assert leaf.shape[0] == 2
        assert np.isfinite(leaf).all()
    images = jnp.asarray(prepared.held['test'].image[:7])
    predict = prepared.method.phases[-1].predict or prepared.method.predict
    for member in (0, 1):
        own = jax.tree.map(lambda x: x[member], (params, mutable))
        out = predict(*own, images)
        assert out['logits'].shape == (7, 5)
        assert out['features'].ndim == 2
        assert len(out['features']) == 7
        assert all(np.isfinite(out[key]).all() for key in ('logits', 'features'))
        np.testing.assert_allclose(
            predict(*own, images[:1])['logits'], out['logits'][:1], 1e-4, 1e-5
        )


@pytest.mark.parametrize('name', METHODS)
def test_member_of_two_equals_the_solo_run(name, fitted):
    both, solo = fitted(name, (0, 1)), fitted(name, (1,))
    for ours, theirs in zip(both, solo, strict=True):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x[1], y[0], 1e-4, 1e-6), ours, theirs)


@pytest.mark.parametrize('name', METHODS)
def test_labels_of_the_target_change_nothing(name, fitted, tmp_path):
    prepared = prepared_for(name, seeds=(1,))
    target = prepared.streams['target']
    source = target.source._replace(labels=(target.source.labels + 1) % 5)
    streams = prepared.streams | {'target': target._replace(source=source)}
    other = fit(prepared._replace(streams=streams), tmp_path)
    jax.tree.map(np.testing.assert_array_equal, fitted(name, (1,)), other)


def test_siamese_on_an_episode_is_all_pairs_of_support_and_query():
    method = built('siamese', **{'data.streams.source.draw': 'episode:3x1x2'})
    params, mutable = method.init(jax.random.key(0), Spec((8, 8, 1), tuple('56789')))
    images = np.random.RandomState(0).rand(9, 8, 8, 1).astype(np.float32)
    label = np.array([4, 0, 2, 4, 4, 0, 0, 2, 2])
    batch = {'source': {'image': images, 'label': label}}
    (player,) = method.phases[0].players
    value, _ = player.loss(params, mutable, batch, {}, jax.random.key(1))
    x = np.asarray(method.predict(params, mutable, images)['features'])
    bias = params['similarity']['bias']
    logits = np.array([[bias - np.abs(x[q] - x[s]).sum() for s in range(3)] for q in range(3, 9)])
    same = label[3:, None] == label[:3]
    own, others = np.log1p(np.exp(-logits[same])), np.log1p(np.exp(logits[~same]))
    assert value == pytest.approx((own.mean() + others.mean()) / 2, rel=1e-4)
