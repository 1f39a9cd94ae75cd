"""`loop.fit`: stops, resumes, refusals of what is not finite, and selection."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import toys
from tljax import loop, train
from tljax.data import streams as data
from tljax.types import Method, Phase, Player


@pytest.fixture
def one_step_a_call(monkeypatch):
    monkeypatch.setattr(loop, 'CALL_SECONDS', 0.0)


def rich(steps=(6, 7)):
    """Norms, dropout, Adam and momentum, two phases, of which the second refreshes and carries."""

    def scale(params, mutable, over, hp, key):
        mean = over('source', lambda batch: data.unit(batch['image']).mean((1, 2, 3))).mean()
        noise = jax.random.normal(key, params['head']['bias'].shape)
        return {**params, 'head': {**params['head'], 'bias': mean + 0.1 * noise}}, mutable

    net = toys.Encoder(rate=0.3)
    first = toys.classifier('encoder|head', lambda hp: optax.adam(hp['rate']), steps[0], net)
    (player,) = first.phases[0].players
    second = Phase(
        'second',
        steps[1],
        (player._replace(trains='encoder/high|head'), player._replace(name='other', trains='head')),
        enter=scale,
        refresh=scale,
        every=3,
        carry=True,
    )
    return Method(first.init, (*first.phases, second), first.predict)


MEMBERS = toys.members(3, 4, rate=[0.01, 0.03])


def lines_of(ran):
    return [{k: v for k, v in line.items() if k != 'seconds'} for line in ran.lines]


def best(scores):
    """Prefers a size of about 15, whenever that is."""
    return -np.abs(np.asarray(scores['probe']['size']) - 15)


def run(directory, stop_at=None, **options):
    options = {'evaluate_every': 4, 'of': MEMBERS, 'score': best, **options}
    stream = options.pop('stream', None) or toys.stream(members=2)
    return toys.fit(directory, rich(), {'source': stream}, stop_at=stop_at, **options)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The uninterrupted run, with as many steps a call as there is time for."""
    return run(tmp_path_factory.mktemp('whole'))


# Before any evaluation, at one, between two, at the phase's end, at a refresh, after one, ...
STOPS = (1, 4, 5, 6, 9, 11)


def test_a_resumed_run_is_the_uninterrupted_one(whole, tmp_path, one_step_a_call):
    """Stopped again and again: parameters, statistics, optimizers, selection, metrics."""
    lines = []
    for stop_at in STOPS:
        part = run(tmp_path, stop_at)
        lines += lines_of(part)
        assert part.fitted is None
        assert part.steps[-1] == stop_at
    last = run(tmp_path)
    assert last.steps == [12, 13]
    assert lines + lines_of(last) == lines_of(whole)
    toys.same(last.saved, whole.saved)
    toys.same(last.fitted.params, whole.fitted.params)
    np.testing.assert_array_equal(last.fitted.step, whole.fitted.step)


def test_how_many_steps_a_call_makes_no_difference(whole, tmp_path, one_step_a_call):
    slow = run(tmp_path)
    assert slow.steps == list(range(1, 14))
    assert len(whole.steps) < 13
    assert lines_of(slow) == lines_of(whole)
    toys.same(slow.saved, whole.saved)


def test_a_kill_after_an_evaluation_repeats_no_line(whole, tmp_path):
    """A run that dies between two checkpoints goes on from the first of them."""

    left = [1, 2, 3]

    def dies(params, mutable, phase):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        return toys.probe(params, mutable, phase)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, evaluate=dies)
    last = run(tmp_path)
    assert lines_of(last) == lines_of(whole)[3:]
    toys.same(last.saved, whole.saved)


def test_a_phase_is_one_executable(tmp_path, monkeypatch, one_step_a_call):
    """However many calls, evaluations and refreshes there are."""
    traced, lift = [], train.lift

    def counted(fn, *args, **options):
        at, lifted = len(traced), lift(fn, *args, **options)
        traced.append(0)

        def one(*values):
            traced[at] += 1
            return lifted(*values)

        return one

    monkeypatch.setattr(train, 'lift', counted)
    run(tmp_path)
    # Of both phases the call and what enters it; of the second what refreshes.
    assert traced == [1] * 5


def test_evaluations_come_at_their_steps_and_at_phase_ends(whole):
    assert [(line['step'], line['phase']) for line in whole.lines] == [
        (4, 'train'), (6, 'train'), (8, 'second'), (12, 'second'), (13, 'second'),
    ]  # fmt: skip
    assert set(whole.lines[0]['train']) == {'model/loss', 'model/accuracy'}
    assert set(whole.lines[2]['train']) == {
        f'{p}/{k}' for p in ('model', 'other') for k in ('loss', 'accuracy')
    }


def test_extra_saves_change_nothing(whole, tmp_path):
    found = run(tmp_path, save_every=1)
    assert lines_of(found) == lines_of(whole)
    toys.same(found.saved, whole.saved)
    # And going on with what is finished returns its result.
    again = run(tmp_path)
    assert not again.steps
    assert not again.lines
    toys.same(again.fitted.params, whole.fitted.params)


def test_fed_streams_resume_too(tmp_path, one_step_a_call):
    stream = toys.stream(members=2, fed=True)
    whole = run(tmp_path / 'whole', stream=stream)
    for stop_at in (4, 9):
        run(tmp_path / 'parts', stop_at, stream=stream)
    parts = run(tmp_path / 'parts', stream=stream)
    toys.same(parts.saved, whole.saved)


# Streams.


def few(fed):
    """Members with 2 and with 4 labels per class of one source."""
    of = toys.source(40)
    order, count = data.select(of, [0, 1], [2, 4])
    stream = data.Stream('source', of, order, count, 5, augment=dim)
    return stream if fed else data.resident(stream, 1024)


def dim(key, images):
    return images * jax.random.uniform(key, (len(images), 1, 1, 1))


def noting(method, steps):
    """Also writes down the rows that every step draws, and what it saw of them."""
    (phase,), size = method.phases, 5
    (player,) = phase.players

    def loss(params, mutable, batch, hp, key):
        notes = mutable['notes']
        own = {k: v for k, v in mutable.items() if k != 'notes'}
        value, (metrics, own) = player.loss(params, own, batch, hp, key)
        seen = {
            'index': batch['source']['index'],
            'image': batch['source']['image'].mean((1, 2, 3)),
        }
        notes = jax.tree.map(lambda old, x: jnp.concatenate([old[1:], x[None]]), notes, seen)
        return value, (metrics, {**own, 'notes': notes})

    def init(key, spec):
        params, mutable = method.init(key, spec)
        notes = {'index': jnp.zeros((steps, size), jnp.int32), 'image': jnp.zeros((steps, size))}
        return params, {**mutable, 'notes': notes}

    phase = phase._replace(players=(player._replace(loss=loss),))
    return Method(init, (phase,), method.predict)


def test_fed_and_resident_streams_are_one(tmp_path):
    """The same rows, labels and augmentation at every step, and so the same training."""
    method = noting(toys.classifier(steps=8), 8)
    of = toys.members(0, 1)
    fed, resident = (
        toys.fit(tmp_path / str(fed), method, {'source': few(fed)}, of).fitted
        for fed in (True, False)
    )
    notes = [x.mutable['notes'] for x in (fed, resident)]
    np.testing.assert_array_equal(notes[0]['index'], notes[1]['index'])
    np.testing.assert_allclose(notes[0]['image'], notes[1]['image'], rtol=1e-6)
    toys.close(fed.params, resident.params, 1e-5)
    stream = few(True)
    for m, rows in enumerate(np.asarray(notes[0]['index'])):
        assert set(rows.ravel()) == set(stream.order[m, : stream.count[m]])


# What is not finite.


def limited(steps=9):
    """Counts up; the loss is no number from `limit` on."""

    def loss(params, mutable, batch, hp, key):
        a = params['a']['w']
        return -a * jnp.where(a >= hp['limit'], jnp.nan, 1.0), ({}, mutable)

    player = Player('counter', 'a', loss, lambda hp: optax.sgd(1.0))
    return toys.game((Phase('count', steps, (player,)),), a=0)


def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved(tmp_path):
    of, lines = toys.members(7, 8, 9, limit=[99, 5, 6]), []

    def watch(params, mutable, phase):
        lines.append(np.asarray(params['a']['w']).tolist())
        return toys.probe(params, mutable, phase)

    for _ in range(2):  # trying again fails just so
        with pytest.raises(FloatingPointError) as error:
            toys.fit(tmp_path, limited(), of=of, evaluate_every=2, evaluate=watch)
        assert "player 'counter' is not finite at step 5 in member 1 of 3 ({'seed': 8})" in str(
            error.value
        )
        assert 'hparams.rate' in str(error.value)
        np.testing.assert_array_equal(toys.saved(tmp_path)['model/params/a/w'], [4, 4, 4])
    assert lines == [[2] * 3, [4] * 3]


def test_a_single_member_needs_no_naming(tmp_path):
    with pytest.raises(FloatingPointError, match=r'at step 3; the last checkpoint'):
        toys.fit(tmp_path, limited(), of=toys.members(limit=3), save_every=2)
    np.testing.assert_array_equal(toys.saved(tmp_path)['model/params/a/w'], [2])


def test_a_parameter_that_is_not_finite_is_neither_saved_nor_reported(tmp_path):
    """The loss of the last step is fine, its gradient is not."""
    root = toys.simple(lambda p: jnp.sqrt(p['a']['w']))
    player = Player('root', 'a', root, lambda hp: optax.sgd(2.0))
    method = toys.game((Phase('p', 2, (player,)),), a=1)  # 1, then 0, then -infinity
    lines = []

    def watch(*args):
        lines.append(toys.probe(*args))
        return lines[-1]

    with pytest.raises(FloatingPointError, match='a parameter is not finite at step 2'):
        toys.fit(tmp_path, method, save_every=1, evaluate=watch)
    np.testing.assert_array_equal(toys.saved(tmp_path)['model/params/a/w'], [0])
    assert not lines


# Selection.


SCORES = {2: [0.5, 0.1], 4: [0.4, 0.2], 6: [0.9, 0.2], 8: [0.9, 0.1]}


def graded(params, mutable, phase):
    step = int(params['a']['w'][0])
    return {'val': {'accuracy': SCORES[step]}}


@pytest.mark.parametrize('stop_at', [None, 4, 7])
def test_each_member_keeps_its_best_step(tmp_path, stop_at, one_step_a_call):
    """The first of equals, also after a stop."""
    of = toys.members(0, 1, limit=99)
    options = {
        'of': of,
        'evaluate': graded,
        'evaluate_every': 2,
        'score': lambda scores: np.asarray(scores['val']['accuracy']),
    }
    if stop_at:
        toys.fit(tmp_path, limited(8), stop_at=stop_at, **options)
    found = toys.fit(tmp_path, limited(8), **options)
    np.testing.assert_array_equal(found.fitted.step, [6, 4])
    np.testing.assert_array_equal(found.fitted.params['a']['w'], [6, 4])
    np.testing.assert_array_equal(found.saved['model/best/params/a/w'], [6, 4])
    np.testing.assert_array_equal(found.saved['model/params/a/w'], [8, 8])


def test_earlier_phases_are_not_chosen_from(tmp_path):
    """However well they score: what they leave is not yet what the method predicts with."""
    early, late = (limited(4).phases[0]._replace(name=name) for name in ('early', 'late'))
    found = toys.fit(
        tmp_path,
        toys.game((early, late), a=0),
        of=toys.members(0, 1, limit=99),
        evaluate=lambda params, mutable, phase: {'low': (-np.asarray(params['a']['w'])).tolist()},
        evaluate_every=2,
        score=lambda scores: np.asarray(scores['low']),
    )
    assert [line['step'] for line in found.lines] == [2, 4, 6, 8]
    np.testing.assert_array_equal(found.fitted.step, [6, 6])
    np.testing.assert_array_equal(found.fitted.params['a']['w'], [6, 6])


def test_without_a_score_the_last_step_is_kept(tmp_path):
    found = toys.fit(tmp_path, limited(8), of=toys.members(0, 1, limit=99))
    np.testing.assert_array_equal(found.fitted.step, [8, 8])
    np.testing.assert_array_equal(found.fitted.params['a']['w'], [8, 8])


def test_values_given_to_fit_stay_usable(tmp_path):
    """Training consumes its own copy of the initial values."""
    of = toys.members(0, 1, limit=99)
    values = toys.drawn(limited(), of)
    toys.fit(tmp_path, limited(), of=of, values=values)
    np.testing.assert_array_equal(values[0]['a']['w'], [0, 0])


@pytest.mark.parametrize('steps', [(0, 3), (3, 0), (0, 0)])
def test_a_stop_before_a_phase_or_after_one_without_steps(tmp_path, steps):
    """The state between two phases is saved; at the very end there is nothing left to stop."""
    method, options = rich(steps), loop.Options(mesh=toys.sharding.mesh(1))
    phases, done = [], [0]

    def fit(stopping):
        checkpoints = loop.Checkpoints(tmp_path)
        calls = loop.Calls(
            evaluate=lambda *args: phases.append(args[-1].name) or toys.probe(*args),
            record=lambda line: None,
            progress=lambda step, info: done.append(step),
            stopping=lambda: stopping and done[-1] == steps[0],
        )
        run = (method, {'source': toys.stream(members=2)}, MEMBERS, toys.drawn(method, MEMBERS))
        try:
            return loop.fit(*run, checkpoints, options, calls)
        finally:
            checkpoints.close()

    with pytest.raises(loop.Stopped):
        fit(True)
    assert phases == [method.phases[0].name]
    assert fit(False).step.tolist() == [sum(steps)] * 2
    assert phases == [phase.name for phase in method.phases]


def test_a_stop_says_where_it_stands(tmp_path, one_step_a_call):
    of = toys.members(limit=99)
    calls = loop.Calls(evaluate=toys.probe, record=lambda line: None, stopping=lambda: True)
    checkpoints = loop.Checkpoints(tmp_path)
    options = loop.Options(mesh=toys.sharding.mesh(1))
    with pytest.raises(loop.Stopped, match='stopped at step 1 of 9; everything is saved'):
        loop.fit(
            limited(),
            {'source': toys.stream()},
            of,
            toys.drawn(limited(), of),
            checkpoints,
            options,
            calls,
        )
    checkpoints.close()
    assert toys.saved(tmp_path)['model/params/a/w'] == [1]
