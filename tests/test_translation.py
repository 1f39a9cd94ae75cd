"""CycleGAN's losses and pool by hand, and classification through a translation."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from tests.test_methods import TRANSLATION, built, prepared_for
from tljax import partition
from tljax.methods.networks import Classifier
from tljax.methods.translator import Translator, signed, swapped
from tljax.types import Spec

SPEC = Spec((2, 2, 1), ('a', 'b'))
HP = {'rate': 0.1, 'momentum': 0.9, 'weight_decay': 0.0, 'label_smoothing': 0.0, 'weight': 1.0}


class Gain(nn.Module):
    """A generator that multiplies."""

    @nn.compact
    def __call__(self, x):
        return x * self.param('gain', nn.initializers.ones, ())


class Mean(nn.Module):
    """A discriminator whose one score is the mean, times a weight."""

    @nn.compact
    def __call__(self, x):
        return x.mean((1, 2, 3))[:, None, None] * self.param('weight', nn.initializers.ones, ())


def by_hand(to_source=1.0, to_target=1.0, of_source=1.0, of_target=1.0, pool=0):
    """A translator of these four numbers."""
    translator = Translator(Gain(), Mean(), pool)
    _, mutable = translator.init(jax.random.key(0), SPEC)
    gains = {'generator_to_source': to_source, 'generator_to_target': to_target}
    weights = {'discriminator_source': of_source, 'discriminator_target': of_target}
    params = {role: {'gain': jnp.float32(value)} for role, value in gains.items()}
    params |= {role: {'weight': jnp.float32(value)} for role, value in weights.items()}
    return translator, params, mutable


RANDOM = np.random.RandomState(0)
S, T = (RANDOM.rand(5, 2, 2, 1).astype(np.float32) for _ in range(2))
BATCH = {'source': {'image': jnp.asarray(S)}, 'target': {'image': jnp.asarray(T)}}
S, T = 2 * S - 1, 2 * T - 1  # as nets see them
score = lambda weight, images: weight * images.mean((1, 2, 3))


def test_the_loss_of_the_generators():
    translator, params, _ = by_hand(0.5, 3.0, 2.0, -1.0)
    value, parts, fake = translator.generate(params, BATCH, cycle=10.0, identity=5.0)
    np.testing.assert_allclose(fake['source'], 0.5 * T, 1e-6)
    np.testing.assert_allclose(fake['target'], 3.0 * S, 1e-6)
    deception = ((score(2.0, 0.5 * T) - 1) ** 2).mean() + ((score(-1.0, 3 * S) - 1) ** 2).mean()
    cycle = np.abs(1.5 * S - S).mean() + np.abs(1.5 * T - T).mean()
    identity = np.abs(0.5 * S - S).mean() + np.abs(3 * T - T).mean()
    for name, expected in (('deception', deception), ('cycle', cycle), ('identity', identity)):
        assert float(parts[name]) == pytest.approx(expected, rel=1e-5)
    assert float(value) == pytest.approx(deception + 10 * cycle + 5 * identity, rel=1e-5)


def test_the_loss_of_the_discriminators():
    translator, params, mutable = by_hand(0.5, 3.0, 2.0, -1.0)
    value, (told, after) = translator.discriminate(params, mutable, BATCH, HP, jax.random.key(0))
    expected, right = 0.0, {}
    for weight, real, fake in ((2.0, S, 0.5 * T), (-1.0, T, 3 * S)):
        expected += ((score(weight, real) - 1) ** 2).mean() / 2
        expected += (score(weight, fake) ** 2).mean() / 2
    assert float(value) == pytest.approx(expected, rel=1e-5)
    for name, weight, real, fake in (('source', 2.0, S, 0.5 * T), ('target', -1.0, T, 3 * S)):
        seen = (score(weight, real) > 0.5).mean() + (score(weight, fake) <= 0.5).mean()
        right[f'discriminator_{name}/accuracy'] = pytest.approx(seen / 2)
    assert told == right
    assert not after, 'without a pool there is nothing to keep'


def test_cycles_and_identities_cost_nothing_where_generators_change_nothing():
    translator, params, _ = by_hand()
    _, parts, _ = translator.generate(params, BATCH, cycle=10.0, identity=5.0)
    assert float(parts['cycle']) == float(parts['identity']) == 0
    translator, params, _ = by_hand(0.25, 4.0)
    _, parts, _ = translator.generate(params, BATCH, cycle=10.0, identity=0.0)
    assert float(parts['cycle']) == 0, 'each undoes the other'
    assert 'identity' not in parts


def test_images_are_translated_in_the_units_of_streams():
    translator, params, _ = by_hand(to_source=0.5)
    images = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
    np.testing.assert_allclose(signed(images).ravel(), [-1, 1])
    np.testing.assert_allclose(
        translator.translated('source', params, images).ravel(), [0.25, 0.75]
    )


def test_the_pool_shows_new_translations_and_old_ones():
    numbered = lambda first: (
        jnp.arange(first, first + 4.0).reshape(4, 1, 1, 1) * jnp.ones((2, 2, 1))
    )
    pool = {'image': jnp.full((6, 2, 2, 1), -1.0), 'filled': jnp.zeros(6, bool)}
    draw, new, old = jax.jit(swapped), 0, 0
    for turn in range(40):
        images, before = numbered(4 * turn), pool
        shown, pool = draw(jax.random.key(turn), images, pool)
        held = set(np.asarray(before['image'][before['filled'], 0, 0, 0]).tolist())
        ours = set(np.asarray(images[:, 0, 0, 0]).tolist())
        seen = np.asarray(shown[:, 0, 0, 0]).tolist()
        after = set(np.asarray(pool['image'][pool['filled'], 0, 0, 0]).tolist())
        assert len(set(seen)) == 4 and set(seen) <= held | ours
        # Whoever is shown from the pool leaves it to a new one; places that were empty fill.
        assert not (set(seen) & held) & after
        assert len(after) == int(pool['filled'].sum())
        assert after <= held | ours
        if before['filled'].all():
            new, old = new + len(set(seen) & ours), old + len(set(seen) & held)
    assert pool['filled'].all()
    assert new + old > 120
    assert 0.35 < old / (new + old) < 0.65, 'a fair coin'


def test_the_discriminators_fill_the_pool():
    translator, params, mutable = by_hand(0.5, 3.0, pool=7)
    first, (_, after) = translator.discriminate(params, mutable, BATCH, HP, jax.random.key(0))
    plain, _ = by_hand(0.5, 3.0)[0].discriminate(params, {}, BATCH, HP, jax.random.key(0))
    assert float(first) == pytest.approx(float(plain), rel=1e-6), 'empty, it shows what is new'
    for name, fake in (('source', 0.5 * T), ('target', 3 * S)):
        kept = np.asarray(after['pool'][name]['image'][after['pool'][name]['filled']])
        np.testing.assert_allclose(np.sort(kept.ravel()), np.sort(fake.ravel()), 1e-6)


@pytest.fixture(scope='module')
def prepared():
    return prepared_for('translation', seeds=(0,))


def test_the_classifier_is_fixed_while_generators_and_discriminators_move(prepared, tmp_path):
    seen = toys.by_phase(tmp_path, prepared)
    before, after = seen['source'], seen['translation']
    for role in before:
        same = [
            (x == y).all()
            for x, y in zip(*map(jax.tree.leaves, (before[role], after[role])), strict=True)
        ]
        assert all(same) if role in ('encoder', 'head') else not any(same[-1:]), role


def test_predictions_go_through_the_generator(prepared):
    values = toys.one_of(jax.tree.map(np.asarray, prepared.values))
    images = jnp.asarray(prepared.held['test'].image[:3])
    classifier = Classifier.build(prepared.config, prepared.spec)
    translator = Translator.build(prepared.spec, 0, *(TRANSLATION[k] for k in TRANSLATION))
    there = translator.translated('source', values[0], images)
    assert (np.abs(there - images / 255.0) > 0.01).any()
    expected, _ = classifier(*values, there)
    found = prepared.method.predict(*values, images)
    np.testing.assert_allclose(found['logits'], expected['logits'], 1e-4, 1e-5)
    first = prepared.method.phases[0]
    plain, _ = classifier(*values, images)
    np.testing.assert_allclose(first.predict(*values, images)['logits'], plain['logits'], 1e-4)


def test_shares_of_the_steps():
    phases = lambda share: (
        built(
            'translation', steps=10, options=TRANSLATION | {'pool': 0, 'source_share': share}
        ).phases
    )
    assert [(phase.name, phase.steps) for phase in phases(0.0)] == [('translation', 10)]
    assert [phase.steps for phase in phases(0.2)] == [2, 8]
    for share in (-0.1, 1.0):
        with pytest.raises(ValueError, match=r'source_share.*expected at least 0 and less than 1'):
            phases(share)


def test_what_translation_refuses():
    with pytest.raises(ValueError, match=r'needs images: set cache_prefix=False'):
        built('translation', since='hidden1')
    with pytest.raises(ValueError, match=r'options.pool is 10.* batch of 25.*or 0'):
        built('translation', options={'pool': 10})


def test_generators_have_momentum_of_their_own(prepared):
    players = prepared.method.phases[1].players
    own, _ = partition.split(
        toys.one_of(prepared.values)[0], partition.select(prepared.values[0], players[0].trains)
    )
    assert {path.split('/')[0] for path in partition.paths(own)} == {
        'generator_to_source',
        'generator_to_target',
    }
    ones = jax.tree.map(jnp.ones_like, own)
    rule = players[0].optimizer(HP | {'momentum': jnp.float32(0.9)})
    state, updates = rule.init(own), []
    for _ in range(2):
        step, state = rule.update(ones, state, own)
        updates.append(float(jax.tree.leaves(step)[0].ravel()[0]))
    assert updates[1] / updates[0] == pytest.approx(1.5), 'sgd with 0.5, whatever the config has'
