"""Losses of reconstruction and translation by NumPy, and DRCN."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import toys
from tests.test_methods import built
from tljax import partition
from tljax.losses.classification import cross_entropy
from tljax.losses.reconstruction import (
    absolute_error,
    least_squares,
    semantic_consistency,
    squared_error,
)
from tljax.methods.drcn import corrupted
from tljax.types import Spec

RANDOM = np.random.RandomState(0)
IMAGES, OTHERS = RANDOM.rand(2, 3, 4, 5, 2)


def test_errors_are_means_over_all_pixels():
    images, others = (jnp.asarray(x, jnp.float32) for x in (IMAGES, OTHERS))
    pairs = list(zip(IMAGES.ravel(), OTHERS.ravel(), strict=True))
    assert len(pairs) == 120
    squared, absolute = (sum(abs(x - r) ** p for x, r in pairs) / 120 for p in (2, 1))
    assert float(squared_error(images, others)) == pytest.approx(squared, rel=1e-5)
    assert float(absolute_error(images, others)) == pytest.approx(absolute, rel=1e-5)
    assert float(squared_error(images, images)) == float(absolute_error(images, images)) == 0


def test_least_squares_pull_scores_to_one_and_to_zero():
    scores = jnp.array([[0.5, 2.0], [-1.0, 1.0]])
    assert float(least_squares(scores, True)) == pytest.approx((0.25 + 1 + 4 + 0) / 4)
    assert float(least_squares(scores, False)) == pytest.approx((0.25 + 4 + 1 + 1) / 4)


def test_semantic_consistency_asks_for_the_class_from_before():
    before, after = RANDOM.randn(2, 6, 3)
    log = after - np.log(np.exp(after).sum(1, keepdims=True))
    by_hand = -np.mean([log[i, before[i].argmax()] for i in range(6)])
    found, gradients = jax.value_and_grad(semantic_consistency, (0, 1))(
        jnp.asarray(before), jnp.asarray(after)
    )
    assert float(found) == pytest.approx(by_hand, rel=1e-5)
    assert not gradients[0].any(), 'the prediction before translation is a label'
    assert gradients[1].any()


def test_corruption_blackens_whole_pixels():
    images = jnp.ones((50, 8, 8, 3))
    found = np.asarray(corrupted(jax.random.key(0), images, 0.4))
    assert set(np.unique(found)) == {0.0, 1.0}
    assert (found == found[..., :1]).all()
    assert found.mean() == pytest.approx(0.6, abs=0.03)
    np.testing.assert_array_equal(corrupted(jax.random.key(0), images, 0.0), images)


SPEC = Spec((8, 8, 1), tuple('56789'))
SMALL = {'widths': (4,), 'kernel': 3}


@pytest.fixture(scope='module')
def values():
    """`(params, mutable)` of one member of DRCN."""
    method = built('drcn')
    return jax.jit(lambda key: method.init(key, SPEC))(jax.random.key(0))


IMAGE = jnp.asarray(RANDOM.randint(0, 255, (10, 8, 8, 1)), jnp.uint8)
BATCH = {'source': {'image': IMAGE[:6], 'label': jnp.arange(6) % 5}, 'target': {'image': IMAGE[6:]}}
HP = {'rate': 0.1, 'momentum': 0.9, 'weight_decay': 0.0, 'label_smoothing': 0.0, 'weight': 2.0}


def test_drcn_reconstructs_the_target_clean_from_what_is_corrupted(values):
    method = built('drcn', options=SMALL | {'corruption': 0.0})
    value, _ = method.phases[0].players[1].loss(*values, BATCH, HP, jax.random.key(0))
    shown = method.pictures['reconstruction_target'].draw(*values, IMAGE[6:])
    clean, found = np.asarray(shown[:, 0]), np.asarray(shown[:, 1])
    np.testing.assert_allclose(clean, IMAGE[6:] / np.float32(255), atol=1e-6)
    assert float(value) == pytest.approx(((clean - found) ** 2).mean(), rel=1e-5)
    noisy = built('drcn').phases[0].players[1]
    assert float(noisy.loss(*values, BATCH, HP, jax.random.key(0))[0]) != float(value)


def test_classification_does_not_move_the_decoder_nor_reconstruction_the_head(values):
    for player, still in zip(built('drcn').phases[0].players, ('decoder', 'head'), strict=True):
        run = lambda params: player.loss(params, values[1], BATCH, HP, jax.random.key(0))[0]
        gradient = jax.grad(run)(values[0])
        for role in ('encoder', 'head', 'decoder'):
            moved = [bool(leaf.any()) for leaf in jax.tree.leaves(gradient[role])]
            assert any(moved) != (role == still)
        owned = partition.select(values[0], player.trains)
        assert {path.split('/')[0] for path in owned} == {'encoder', 'head', 'decoder'} - {still}


def test_what_is_frozen_is_frozen_for_reconstruction_too(values):
    player = built('drcn', trains='encoder/dense|head').phases[0].players[1]
    owned = partition.select(values[0], player.trains)
    assert {path.rpartition('/')[0] for path in owned if 'decoder' not in path} == {'encoder/dense'}
    assert any(path.startswith('decoder/') for path in owned)


def test_the_weight_scales_the_steps_of_reconstruction():
    player = built('drcn').phases[0].players[1]
    own = {'decoder': {'kernel': jnp.ones((2, 2))}}

    def step(weight):
        rule = player.optimizer(HP | {'weight': weight})
        return float(rule.update(own, rule.init(own), own)[0]['decoder']['kernel'][0, 0])

    assert step(1.0) == pytest.approx(-0.1)
    assert step(3.0) == pytest.approx(-0.3)


def test_drcn_in_one_step_adds_the_losses(values):
    method = built('drcn', options=SMALL | {'alternate': False, 'corruption': 0.0})
    (player,) = method.phases[0].players
    value, (metrics, _) = player.loss(*values, BATCH, HP, jax.random.key(0))
    logits = method.predict(*values, IMAGE[:6])['logits']
    error = float(metrics['reconstruction'])
    by_hand = cross_entropy(logits, BATCH['source']['label']) + 2 * error
    assert float(value) == pytest.approx(float(by_hand), rel=1e-5)
    assert error > 0


def test_drcn_refuses_a_cached_prefix():
    with pytest.raises(ValueError, match=r'drcn reconstructs images: set cache_prefix=False'):
        built('drcn', since='hidden1')


def test_drcn_learns_to_reconstruct(values):
    (phase,) = built('drcn').phases
    adam = lambda hp: optax.adam(3e-3)
    phase = phase._replace(players=[player._replace(optimizer=adam) for player in phase.players])
    first, last = (toys.play(phase, *values, steps, BATCH, HP)[3] for steps in (1, 60))
    assert float(last['autoencoder/loss']) < 0.6 * float(first['autoencoder/loss'])
