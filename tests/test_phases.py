"""Phases one after the other: hooks, closed forms, refreshes, carried state, gates and teachers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import toys
from tljax import loop
from tljax.data import streams as data
from tljax.types import Method, Phase, Player, solve

sgd = lambda rate: lambda hp: optax.sgd(rate)


def number(found, role):
    """A scalar of the first member of a run."""
    return float(found.fitted.params[role]['w'][0])


def adda():
    """Supervised learning, then a copy of the encoder that a discriminator is played against."""
    pretrain = toys.classifier(steps=3)

    def init(key, spec):
        params, mutable = pretrain.init(key, spec)
        params['target_encoder'] = jax.tree.map(jnp.zeros_like, params['encoder'])
        mutable['target_encoder'] = mutable['encoder']
        params['discriminator'] = {'kernel': jnp.ones((5, 1))}
        return params, mutable

    def copy(params, mutable, over, hp, key):
        params = {**params, 'target_encoder': params['encoder']}
        return params, {**mutable, 'target_encoder': mutable['encoder']}

    net = toys.Encoder()

    def score(params, mutable, batch, key, stream, role):
        image = data.unit(batch[stream]['image'])
        features, mutable = toys.apply(net, role, params, mutable, image, key=key)
        return (features @ params['discriminator']['kernel'])[:, 0], mutable

    def discriminator(params, mutable, batch, hp, key):
        ours, mutable = score(params, mutable, batch, key, 'source', 'encoder')
        theirs, mutable = score(params, mutable, batch, key, 'target', 'target_encoder')
        return (jax.nn.softplus(-ours) + jax.nn.softplus(theirs)).mean(), ({}, mutable)

    def target(params, mutable, batch, hp, key):
        theirs, mutable = score(params, mutable, batch, key, 'target', 'target_encoder')
        return jax.nn.softplus(-theirs).mean(), ({}, mutable)

    players = (
        Player('discriminator', 'discriminator', discriminator, sgd(0.5)),
        Player('target', 'target_encoder', target, sgd(0.5)),
    )
    phases = (*pretrain.phases, Phase('adapt', 4, players, enter=copy))
    return Method(init, phases, pretrain.predict)


def test_a_second_phase_plays_with_a_copy_of_a_frozen_encoder(tmp_path):
    """ADDA: the source encoder and its statistics stay bit for bit, the copy moves away from it."""
    streams = {'source': toys.stream(), 'target': toys.stream('target', toys.source(20, seed=5))}
    seen = {}

    def watch(params, mutable, phase):
        seen[phase.name] = jax.tree.map(np.asarray, (params, mutable))
        return toys.probe(params, mutable, phase)

    method = adda()
    toys.fit(tmp_path, method, streams, evaluate=watch)
    (before, stats), (after, later) = seen['train'], seen['adapt']
    for role in ('encoder', 'head'):
        toys.same(before[role], after[role])
    toys.same(stats['encoder'], later['encoder'])
    assert not before['target_encoder']['low']['dense']['kernel'].any()
    moved = jax.tree.map(lambda a, b: (a != b).any(), after['target_encoder'], after['encoder'])
    assert all(jax.tree.leaves(moved))
    near = np.abs(
        after['target_encoder']['low']['dense']['kernel']
        - after['encoder']['low']['dense']['kernel']
    )
    assert 0 < near.max() < 0.5
    fresh, old = (
        later[role]['batch_stats']['low']['norm'] for role in ('target_encoder', 'encoder')
    )
    assert (fresh['mean'] != old['mean']).all()


# Closed forms.


def ridge(stream='source', block=None):
    def fit(params, mutable, over, hp, key):
        def features(batch):
            x = data.unit(batch['image']).reshape(len(batch['image']), -1)
            return {'x': x, 'y': batch['label'], 'valid': batch['valid']}

        all_of = over(stream, features)
        weight = all_of['valid'].astype(jnp.float32)[:, None]
        x, y = all_of['x'], jax.nn.one_hot(all_of['y'], 3)
        gram = x.T @ (weight * x) + hp['ridge'] * jnp.eye(x.shape[1])
        return {'head': {'kernel': jnp.linalg.solve(gram, x.T @ (weight * y))}}, mutable

    return fit


def solved(method_phases):
    init = lambda key, spec: ({'head': {'kernel': jnp.zeros((4, 3))}}, {})
    return Method(init, method_phases, None)


def few(fed=False):
    """Two members, of 2 and of 4 labels per class."""
    of = toys.source(30)
    order, count = data.select(of, [0, 1], [2, 4])
    stream = data.Stream('source', of, order, count, 6)
    return stream if fed else data.resident(stream, 1024)


@pytest.mark.parametrize('fed', [False, True])
def test_a_closed_form_is_a_phase_without_steps(tmp_path, fed):
    """Ridge regression over a stream equals NumPy's, member by member, padding left out."""
    stream, of = few(fed), toys.members(0, 1, ridge=[0.1, 3.0])
    method = solved((solve('ridge', ridge()),))
    found = toys.fit(tmp_path, method, {'source': stream}, of, block=5)
    images, labels = few().image, stream.source.labels
    for m, strength in enumerate((0.1, 3.0)):
        rows = stream.order[m, : stream.count[m]]
        x = images[rows].reshape(len(rows), -1) / 255
        y = np.eye(3)[labels[rows]]
        expected = np.linalg.solve(x.T @ x + strength * np.eye(4), x.T @ y)
        np.testing.assert_allclose(found.fitted.params['head']['kernel'][m], expected, rtol=2e-3)
    assert [(line['step'], line['phase']) for line in found.lines] == [(0, 'ridge')]


def test_hooks_never_see_labels_of_an_unlabelled_stream(tmp_path):
    seen = []

    def look(params, mutable, over, hp, key):
        over('source', lambda batch: seen.append(set(batch)) or batch['index'])
        return params, mutable

    for fed in (False, True):
        streams = {'source': toys.stream(labelled=False, fed=fed)}
        toys.fit(tmp_path / str(fed), solved((solve('look', look),)), streams)
    assert all(keys == {'image', 'index', 'valid'} for keys in seen)


def test_over_returns_every_row_in_order(tmp_path):
    seen = []

    def look(params, mutable, over, hp, key):
        for block in (lambda batch: batch['index'], lambda batch: batch['image']):
            jax.debug.callback(lambda x: seen.append(np.asarray(x)), over('source', block))
        return params, mutable

    stream = toys.stream()
    toys.fit(tmp_path, solved((solve('look', look),)), {'source': stream}, block=7)
    jax.effects_barrier()
    index, image = sorted(seen, key=np.ndim)
    np.testing.assert_array_equal(index, np.arange(30))
    np.testing.assert_array_equal(image, stream.image)


def test_closed_forms_before_between_and_after_steps(tmp_path):
    step = Player('x', 'a', toys.simple(lambda p: p['a']['w']), sgd(1.0))

    def double(params, mutable, over, hp, key):
        return {'a': {'w': 2 * params['a']['w']}}, mutable

    train = Phase('train', 2, (step,))
    phases = (solve('s1', double), train, solve('s2', double), train, solve('s3', double))
    found = toys.fit(tmp_path, toys.game(phases, a=10))
    assert number(found, 'a') == ((10 * 2 - 2) * 2 - 2) * 2
    assert [line['step'] for line in found.lines] == [0, 2, 2, 4, 4]


def test_a_hook_that_changes_structure_or_shape_is_an_error(tmp_path):
    changes = {
        'structure': lambda params: {**params, 'b': {'w': jnp.zeros(())}},
        'shape': lambda params: {'a': {'w': jnp.zeros(2)}},
        'type': lambda params: {'a': {'w': jnp.zeros((), jnp.int32)}},
    }
    step = Player('x', 'a', toys.simple(lambda p: p['a']['w'].sum()), sgd(1.0))
    for name, change in changes.items():
        hook = lambda params, mutable, *_: (change(params), mutable)
        for phase in (
            Phase('bad', 4, (step,), enter=hook),
            Phase('bad', 4, (step,), refresh=hook, every=2),
        ):
            with pytest.raises(ValueError, match=r"phase 'bad': `(enter|refresh)` changed"):
                toys.fit(tmp_path / f'{name}{phase.every}', toys.game((phase,), a=1))


def test_a_hook_that_changes_the_structure_of_statistics_is_an_error(tmp_path):
    hook = lambda params, mutable, *_: (params, {**mutable, 'bank': jnp.zeros(3)})
    with pytest.raises(ValueError, match="'bad': `enter` changed"):
        toys.fit(tmp_path, toys.game((solve('bad', hook),), a=1))


# Refreshes.


def refreshed(every=3, steps=10):
    """Adds its number of the step to a; each refresh writes a into the notes."""

    def note(params, mutable, over, hp, key):
        notes = jnp.append(mutable['notes'][1:], params['a']['w'])
        return params, {'notes': notes}

    step = Player('x', 'a', toys.simple(lambda p: -p['a']['w']), sgd(1.0))
    phases = (
        Phase('before', 2, (step,)),
        Phase('train', steps, (step,), enter=note, refresh=note, every=every),
    )
    init = lambda key, spec: (toys.scalars(a=0), {'notes': jnp.full(6, -1.0)})
    return Method(init, phases, None)


EXPECTED = [-1, -1, 2, 5, 8, 11]  # entering at 2, then three, six and nine steps later


def test_refreshes_come_at_exactly_their_steps(tmp_path):
    found = toys.fit(tmp_path, refreshed())
    np.testing.assert_array_equal(found.fitted.mutable['notes'][0], EXPECTED)


@pytest.mark.parametrize('cadence', [{}, {'evaluate_every': 4}, {'save_every': 1}, {'loop': False}])
def test_refreshes_do_not_depend_on_evaluations_and_saves(tmp_path, cadence):
    found = toys.fit(tmp_path, refreshed(), **cadence)
    np.testing.assert_array_equal(found.fitted.mutable['notes'][0], EXPECTED)


@pytest.mark.parametrize('stop_at', [2, 4, 5, 6, 8, 11])
def test_refreshes_come_once_after_a_stop(tmp_path, stop_at, monkeypatch):
    monkeypatch.setattr(loop, 'CALL_SECONDS', 0.0)  # a step a call
    stopped = toys.fit(tmp_path, refreshed(), stop_at=stop_at)
    assert stopped.steps[-1] == stop_at
    found = toys.fit(tmp_path, refreshed())
    np.testing.assert_array_equal(found.fitted.mutable['notes'][0], EXPECTED)
    assert found.steps[0] == stop_at + 1


def test_no_refresh_at_the_last_step(tmp_path):
    found = toys.fit(tmp_path, refreshed(steps=6))
    np.testing.assert_array_equal(found.fitted.mutable['notes'][0], [-1, -1, -1, -1, 2, 5])


# State across phases.


def test_progress_is_the_share_of_the_phases_steps_that_are_done(tmp_path):
    """w moves by sgd on -progress w: up by the sum of the progress of all steps."""

    def loss(params, mutable, batch, hp, key):
        return -hp['progress'] * params['w']['w'], ({}, mutable)

    player = Player('model', 'w', loss, sgd(1.0))
    phases = [Phase(name, steps, (player,)) for name, steps in (('one', 2), ('two', 4))]
    found = toys.fit(tmp_path, toys.game(phases, w=0.0))
    assert number(found, 'w') == (0 + 1) / 2 + (0 + 1 + 2 + 3) / 4


@pytest.mark.parametrize('carry', [True, False])
def test_optimizers_carry_over(tmp_path, carry):
    """Momentum of what both phases train goes on; that of what is new starts."""
    momentum = lambda hp: optax.sgd(0.1, 0.9)
    loss = toys.simple(lambda p: p['a']['w'] + 2 * p['b']['w'])
    phases = (
        Phase('one', 3, (Player('x', 'a', loss, momentum),)),
        Phase('two', 2, (Player('x', 'a|b', loss, momentum),), carry=carry),
    )
    found = toys.fit(tmp_path, toys.game(phases, a=0, b=0))
    a = b = speed = other = 0.0
    for n in range(5):
        if n == 3 and not carry:
            speed = 0.0
        speed = 0.9 * speed + 1
        a -= 0.1 * speed
        if n >= 3:
            other = 0.9 * other + 2
            b -= 0.1 * other
    assert number(found, 'a') == pytest.approx(a, rel=1e-6)
    assert number(found, 'b') == pytest.approx(b, rel=1e-6)


def test_carried_counts_go_on_in_the_schedule():
    falling = lambda hp: optax.sgd(lambda count: 1.0 / (1 + count))
    player = Player('x', 'a', toys.simple(lambda p: p['a']['w']), falling)
    phase = Phase('p', 2, (player,))
    _, _, optimizers, _ = toys.play(phase, toys.scalars(a=0), steps=2)
    enter = toys.train.enter_phase
    *_, carried = enter(
        phase._replace(carry=True), toys.scalars(a=0), {}, None, {}, None, optimizers
    )
    assert jax.tree.leaves(carried) == [2]
    *_, fresh = enter(phase, toys.scalars(a=0), {}, None, {}, None, optimizers)
    assert jax.tree.leaves(fresh) == [0]


def test_what_has_another_shape_is_not_carried():
    momentum = lambda hp: optax.sgd(0.1, 0.9)
    loss = toys.simple(lambda p: p['a']['w'].sum())
    phase = Phase('p', 1, (Player('x', 'a', loss, momentum),), carry=True)
    last = {'x': momentum({}).init({'a': {'w': jnp.ones(3)}})}
    last = jax.tree.map(lambda x: x + 5, last)
    params = {'a': {'w': jnp.ones(2)}}
    *_, carried = toys.train.enter_phase(phase, params, {}, None, {}, None, last)
    np.testing.assert_array_equal(jax.tree.leaves(carried)[0], [0, 0])


# Players that watch others.


def test_a_teacher_is_a_last_player():
    """theta_T after n steps is m^n theta_T + (1 - m) sum of m^(n - 1 - i) theta_S after step i."""
    m = 0.8
    follow = lambda p: 0.5 * (p['teacher']['w'] - jax.lax.stop_gradient(p['student']['w'])) ** 2
    players = (
        Player('student', 'student', toys.simple(lambda p: p['student']['w'] ** 2 / 2), sgd(0.3)),
        Player('teacher', 'teacher', toys.simple(follow), sgd(1 - m)),
    )
    n = 6
    found, *_ = toys.play(Phase('p', n, players), toys.scalars(student=2, teacher=-1), steps=n)
    students = [2 * 0.7 ** (i + 1) for i in range(n)]
    expected = m**n * -1 + (1 - m) * sum(m ** (n - 1 - i) * s for i, s in enumerate(students))
    assert float(found['student']['w']) == pytest.approx(students[-1], rel=1e-5)
    assert float(found['teacher']['w']) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('simultaneous', [True, False])
def test_a_gate_reads_this_steps_metrics(simultaneous):
    """The second player moves only in steps in which the first one's score is high."""

    def judge(params, mutable, batch, hp, key):
        return params['d']['w'], ({'score': batch['score']}, mutable)

    def gate(step, metrics, value, **_):
        assert value.shape == ()
        return metrics['judge/score'] > 0.5

    gated = lambda hp: optax.conditionally_mask(optax.sgd(1.0), gate, forward_extra_args=True)
    moved = Player('moved', 'm', toys.simple(lambda p: -p['m']['w']), gated)
    players = (Player('judge', 'd', judge, sgd(1.0)), moved)
    phase = Phase('p', 5, players, simultaneous=simultaneous)
    scores = [0.9, 0.1, 0.4, 0.8, 0.6]
    batch = lambda n: {'score': jnp.float32(scores[n])}
    found, *_ = toys.play(phase, toys.scalars(d=0, m=0), steps=5, batch=batch)
    assert float(found['m']['w']) == 3
    assert float(found['d']['w']) == -5
