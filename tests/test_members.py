"""A member of many is the solo run: equal draws and initial values, equal steps but rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import runs, toys
from tljax import initial, sampling
from tljax.data import streams as data
from tljax.types import Method

SEEDS, RATES, LABELS = (5, 9, 2**32 - 1), (0.1, 0.02, 0.3), (2, 2, 4)
STEPS, BATCH = 5, 6


def stream(chosen):
    """The stream of the chosen members, each with its own few-shot subset."""
    of = toys.source(60)
    order, count = data.select(of, [SEEDS[m] for m in chosen], [LABELS[m] for m in chosen])
    made = data.Stream('source', of, order, count, BATCH, augment=brighten)
    return data.resident(made, 1024)


def brighten(key, images):
    return images + jax.random.normal(key, (len(images), 1, 1, 1))


def noted(optimizer, rate=0.0):
    """A classifier that also writes down what every step draws."""
    method = toys.classifier(optimizer=optimizer, steps=STEPS, net=toys.Encoder(rate=rate))
    (phase,) = method.phases
    (player,) = phase.players

    def loss(params, mutable, batch, hp, key):
        mutable = dict(mutable)
        notes, source = mutable.pop('notes'), batch['source']
        value, (metrics, mutable) = player.loss(params, mutable, batch, hp, key)
        seen = {
            'index': source['index'],
            'brightness': source['image'][:, 0, 0, 0],
            'noise': jax.random.bits(key, (3,)),
        }
        notes = jax.tree.map(lambda old, x: jnp.concatenate([old[1:], x[None]]), notes, seen)
        return value, (metrics, {**mutable, 'notes': notes})

    def init(key, spec):
        params, mutable = method.init(key, spec)
        notes = {
            'index': jnp.zeros((STEPS, BATCH), jnp.int32),
            'brightness': jnp.zeros((STEPS, BATCH)),
            'noise': jnp.zeros((STEPS, 3), jnp.uint32),
        }
        return params, {**mutable, 'notes': notes}

    return Method(init, (phase._replace(players=(player._replace(loss=loss),)),), None)


def run(directory, method, chosen, **options):
    of = toys.members(*(SEEDS[m] for m in chosen), rate=[RATES[m] for m in chosen])
    values = initial.drawn(method, toys.SPEC, of.seed)
    streams = {'source': stream(chosen)}
    found = toys.fit(directory, method, streams, of, values=values, **options)
    return values, found.fitted.params, found.fitted.mutable


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    """All members at once, and each alone, with plain SGD and dropout."""
    method = noted(lambda hp: optax.sgd(hp['rate']), rate=0.3)
    new = lambda: tmp_path_factory.mktemp('run')
    alone = [run(new(), method, [m]) for m in range(3)]
    together = {how: run(new(), method, range(3), lifting=how) for how in ('vmap', 'map')}
    return together, alone


def member(tree, m):
    return jax.tree.map(lambda x: np.asarray(x[m]), tree)


@pytest.mark.parametrize('how', ['vmap', 'map'])
def test_draws_and_initial_values_are_equal_bit_for_bit(plain, how):
    together, alone = plain[0][how], plain[1]
    for m in range(3):
        toys.same(member(together[0][0], m), member(alone[m][0][0], 0))
        ours, solo = member(together[2]['notes'], m), member(alone[m][2]['notes'], 0)
        for name in ('index', 'noise'):
            np.testing.assert_array_equal(ours[name], solo[name])
        np.testing.assert_allclose(ours['brightness'], solo['brightness'], rtol=1e-6)


def test_every_member_draws_from_its_own_subset(plain):
    indices = np.asarray(plain[0]['vmap'][2]['notes']['index'])
    few = stream(range(3))
    for m, seed in enumerate(SEEDS):
        assert few.count[m] == LABELS[m] * 3
        steps = [
            sampling.indices(np.uint32(seed), 'source', step, BATCH, few.count[m], np)
            for step in range(STEPS)
        ]
        np.testing.assert_array_equal(indices[m], few.order[m][np.stack(steps)])
    assert (indices[0] != indices[1]).any()


@pytest.mark.parametrize('how', ['vmap', 'map'])
def test_five_steps_of_plain_sgd(plain, how):
    together, alone = plain[0][how], plain[1]
    for m in range(3):
        toys.close(member(together[1], m), member(alone[m][1], 0), 1e-5)
        stats, solo = ({'stats': t[2]['encoder']} for t in (together, alone[m]))
        toys.close(member(stats, m), member(solo, 0), 1e-5)
    # The members are different runs.
    first, second = (member(together[1], m)['head']['kernel'] for m in (0, 1))
    assert np.abs(first - second).max() > 0.01


@pytest.mark.parametrize('how', ['vmap', 'map'])
def test_five_steps_with_state(tmp_path, how):
    optimizer = lambda hp: optax.chain(
        optax.clip_by_global_norm(1.0), optax.add_decayed_weights(1e-3), optax.sgd(hp['rate'], 0.9)
    )
    method = noted(optimizer)
    together = run(tmp_path / 'all', method, [0, 1], lifting=how)
    alone = run(tmp_path / 'one', method, [1])
    toys.close(member(together[1], 1), member(alone[1], 0), 1e-4)


def test_two_hundred_steps_change_few_predictions(tmp_path):
    """Rounding grows from step to step; at most one prediction in a hundred may change."""

    def predicted(directory, **axes):
        c = runs.run(steps=200, **{'optimizer.schedule': 'cosine', 'hparams.rate': 0.1})
        c.members.update(axes)
        ready, found = toys.fit_config(directory, c)
        images = ready.held['test'].image
        logits = jax.vmap(lambda p: ready.method.predict(p, {}, images)['logits'])(found.params)
        found = zip(ready.members.table, np.asarray(logits.argmax(-1)), strict=True)
        return {tuple(sorted(m.items())): p for m, p in found}, ready.held['test'].source.labels

    together, labels = predicted(tmp_path / 'all', seed=(0, 1), labels_per_class=(10, 40))
    alone, _ = predicted(tmp_path / 'one', seed=(1,), labels_per_class=(40,))
    ((member, solo),) = alone.items()
    assert len(together) == 4
    assert (together[member] != solo).mean() <= 0.01
    assert (solo == labels).mean() > 0.9


def test_equal_seeds_start_from_equal_values():
    values = initial.drawn(toys.classifier(), toys.SPEC, [4, 7, 4])
    kernel = np.asarray(values[0]['encoder']['low']['dense']['kernel'])
    np.testing.assert_array_equal(kernel[0], kernel[2])
    assert (kernel[0] != kernel[1]).all()
