"""One step of the game: who moves, on which gradient, at which cost."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import toys
from tljax import partition, train
from tljax.types import Phase, Player

sgd = lambda rate: lambda hp: optax.sgd(rate)
X = np.random.RandomState(0).randn(2, 6, 4).astype(np.float32)
BATCH = {'source': {'image': X[0], 'label': np.arange(6) % 3}, 'target': {'image': X[1]}}


def dense(key, inputs, outputs):
    return {'kernel': jax.random.normal(jax.random.key(key), (inputs, outputs)) * 0.5}


# Freezing is a partition.


def wide(optimizer, trains, width=128):
    """A step of two frozen-or-not hidden layers and a head, compiled."""
    sizes = [width] * 4
    params = {
        'encoder': {f'layer{i}': dense(i, *sizes[i : i + 2]) for i in range(2)},
        'head': dense(9, width, 3),
    }

    def loss(params, mutable, batch, hp, key):
        x = batch
        for layer in params['encoder'].values():
            x = jnp.tanh(x @ layer['kernel'])
        return jnp.mean((x @ params['head']['kernel']) ** 2), ({}, mutable)

    phase = Phase('train', 9, (Player('model', trains, loss, optimizer),))
    state = train.enter_phase(phase, params, {}, None, {}, None)
    step = jax.jit(train.make_step(phase, params, {}))
    batch = jnp.ones((width, width))
    args = (*state, batch, {}, jnp.uint32(0), jnp.int32(0))
    return params, step, args


def clipped(hp):
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2))


@pytest.mark.parametrize('optimizer', [sgd(0.1), clipped])
def test_a_frozen_encoder_costs_no_backward_pass(optimizer):
    def flops(trains):
        _, step, args = wide(optimizer, trains)
        return step.lower(*args).compile().cost_analysis()['flops']

    product = 2 * 128**3  # of one hidden layer, forward
    assert 2 * product < flops('head') < 2.3 * product
    # Backward: two products a layer, but no gradient of the images.
    assert flops('encoder|head') > 4.9 * product


def test_optimizer_state_exists_only_for_what_is_trained():
    params, step, args = wide(clipped, 'head')
    moments = args[2]['model'][1][0].mu
    assert partition.paths(moments) == ['head/kernel']
    after, _, optimizers, _ = step(*args)
    assert jax.tree.structure(optimizers) == jax.tree.structure(args[2])
    assert (after['head']['kernel'] != params['head']['kernel']).all()


def test_the_gradient_holds_only_what_is_trained():
    seen = []

    def look(loss, own, key):
        seen.extend(partition.paths(own))
        return jax.value_and_grad(loss, has_aux=True)(own)

    loss = toys.simple(lambda p: p['a']['w'] * p['b']['w'])
    phase = Phase('p', 1, (Player('x', 'a', loss, sgd(0.1), look),))
    toys.play(phase, toys.scalars(a=1, b=2))
    assert set(seen) == {'a/w'}


@pytest.mark.parametrize(
    'trains', ['head', 'encoder/high|head', 'encoder/low/norm/bias', '**/bias']
)
def test_frozen_leaves_stay_bit_for_bit(trains):
    optimizer = lambda hp: optax.chain(optax.add_decayed_weights(0.1), optax.adam(0.1))
    method = toys.classifier(trains, optimizer)
    params, mutable = method.init(jax.random.key(0), toys.SPEC)
    images = X[0].reshape(6, 2, 2, 1)
    batch = {'source': {'image': images, 'label': np.arange(6) % 3}}
    after, *_ = toys.play(method.phases[0], params, mutable, 3, batch)
    chosen = partition.select(params, trains)
    before, after = partition.flat(params), partition.flat(after)
    for path in before:
        assert bool((before[path] == after[path]).all()) is (path not in chosen), path


# Players: DANN as a game.


def dann_parts():
    params = {
        'encoder': dense(0, 4, 5),
        'head': dense(1, 5, 3),
        'discriminator': dense(2, 5, 1),
    }

    def forward(params, batch, reverse=lambda x: x):
        features = [jnp.tanh(batch[s]['image'] @ params['encoder']['kernel']) for s in batch]
        logits = features[0] @ params['head']['kernel']
        label = optax.softmax_cross_entropy_with_integer_labels(logits, batch['source']['label'])
        score = reverse(jnp.concatenate(features)) @ params['discriminator']['kernel']
        side = jnp.repeat(jnp.array([1.0, 0.0]), len(logits))
        return label.mean(), optax.sigmoid_binary_cross_entropy(score[:, 0], side).mean()

    return params, forward


def test_two_simultaneous_players_are_gradient_reversal():
    params, forward = dann_parts()
    weight, rate = 0.7, 0.5

    @jax.custom_vjp
    def reverse(x):
        return x

    reverse.defvjp(lambda x: (x, None), lambda _, g: (-weight * g,))

    def reversal(params):
        label, domain = forward(params, BATCH, reverse)
        return label + domain

    expected = params
    for _ in range(5):
        gradient = jax.grad(reversal)(expected)
        # The discriminator's own loss carries no weight, as in the paper's layer.
        expected = jax.tree.map(lambda p, g: p - rate * g, expected, gradient)

    def model(params, mutable, batch, hp, key):
        label, domain = forward(params, batch)
        return label - weight * domain, ({'domain': domain}, mutable)

    def opponent(params, mutable, batch, hp, key):
        return forward(params, batch)[1], ({}, mutable)

    players = (
        Player('model', 'encoder|head', model, sgd(rate)),
        Player('discriminator', 'discriminator', opponent, sgd(rate)),
    )
    phase = Phase('adapt', 5, players, simultaneous=True)
    found, _, _, metrics = toys.play(phase, params, steps=5, batch=BATCH)
    toys.close(found, expected, 1e-6)
    assert set(metrics) == {'model/loss', 'model/domain', 'discriminator/loss'}
    # In turn it is another game, and the order in which players are listed does not matter here.
    inturn, *_ = toys.play(phase._replace(simultaneous=False), params, steps=5, batch=BATCH)
    assert (
        np.abs(inturn['discriminator']['kernel'] - expected['discriminator']['kernel']).max() > 1e-3
    )
    other, *_ = toys.play(phase._replace(players=players[::-1]), params, steps=5, batch=BATCH)
    toys.close(other, expected, 1e-6)


def test_overlapping_simultaneous_players_are_refused():
    loss = toys.simple(lambda p: p['a']['w'] ** 2)
    players = (Player('one', 'a|b', loss, sgd(0.1)), Player('two', '*/w|!a', loss, sgd(0.1)))
    phase = Phase('adapt', 1, players, simultaneous=True)
    with pytest.raises(ValueError, match=r"'adapt' is simultaneous, .*'one' and 'two'.*'b/w'"):
        toys.play(phase, toys.scalars(a=1, b=1))
    toys.play(phase._replace(simultaneous=False), toys.scalars(a=1, b=1))


def test_two_players_of_one_name_are_refused():
    """Optimizer state goes by name; only the very same player may be listed again."""
    loss = toys.simple(lambda p: p['a']['w'] * p['b']['w'])
    players = (Player('one', 'a', loss, sgd(0.1)), Player('one', 'b', loss, sgd(0.1)))
    with pytest.raises(ValueError, match="two players named 'one'"):
        toys.play(Phase('p', 1, players), toys.scalars(a=1, b=1))


def test_a_pattern_that_matches_nothing_names_the_near_misses():
    player = Player('model', 'encodr', toys.simple(lambda p: 0.0), sgd(0.1))
    with pytest.raises(ValueError, match='nearest: encoder'):
        toys.play(Phase('p', 1, (player,)), toys.scalars(encoder=1, head=1))


def product_game(**options):
    loss = toys.simple(lambda p: p['a']['w'] * p['b']['w'])
    players = (Player('x', 'a', loss, sgd(0.1)), Player('y', 'b', loss, sgd(0.1)))
    return Phase('p', 1, players, **options)


def test_players_in_turn_see_the_moves_before_them():
    found, _, _, metrics = toys.play(product_game(), toys.scalars(a=1, b=2))
    # a <- 1 - 0.1 * 2 = 0.8; then b <- 2 - 0.1 * 0.8 = 1.92.
    assert float(found['a']['w']) == pytest.approx(0.8)
    assert float(found['b']['w']) == pytest.approx(1.92)
    assert float(metrics['x/loss']) == pytest.approx(2.0)
    assert float(metrics['y/loss']) == pytest.approx(1.6)


def test_simultaneous_players_do_not():
    found, *_ = toys.play(product_game(simultaneous=True), toys.scalars(a=1, b=2))
    assert float(found['a']['w']) == pytest.approx(0.8)
    assert float(found['b']['w']) == pytest.approx(1.9)


def test_a_player_listed_k_times_makes_k_steps_with_one_optimizer_state():
    once = Player(
        'x', 'a', toys.simple(lambda p: p['a']['w'] ** 2 / 2), lambda hp: optax.sgd(0.1, 0.9)
    )
    other = Player('y', 'b', toys.simple(lambda p: p['a']['w'] * p['b']['w']), sgd(1.0))
    phase = Phase('p', 2, (once, once, once, other))
    found, _, optimizers, _ = toys.play(phase, toys.scalars(a=1, b=0), steps=2)
    a, b, momentum = 1.0, 0.0, 0.0
    for _ in range(2):
        for _ in range(3):
            momentum = 0.9 * momentum + a
            a -= 0.1 * momentum
        b -= a
    assert float(found['a']['w']) == pytest.approx(a, rel=1e-6)
    assert float(found['b']['w']) == pytest.approx(b, rel=1e-6)
    assert set(optimizers) == {'x', 'y'}
    assert float(optimizers['x'][0].trace['a']['w']) == pytest.approx(momentum, rel=1e-6)


def test_inner_steps_have_randomness_of_their_own():
    def loss(params, mutable, batch, hp, key):
        noise = jax.random.normal(key)
        return params['a']['w'] * noise, ({}, {'noise': jnp.append(mutable['noise'][1:], noise)})

    player = Player('x', 'a', loss, sgd(0.1))
    phase = Phase('p', 2, (player, player, player))
    _, mutable, *_ = toys.play(phase, toys.scalars(a=1), {'noise': jnp.zeros(6)}, steps=2)
    assert len(set(np.asarray(mutable['noise']).tolist())) == 6


# Norms across players.


def test_norms_follow_the_phase_not_the_player():
    """The discriminator sees the encoder as the encoder's player does, and writes nothing."""
    method = toys.classifier()
    params, mutable = method.init(jax.random.key(0), toys.SPEC)
    (model,) = method.phases[0].players
    images = X[0].reshape(6, 2, 2, 1) * 3 + 2
    batch = {'source': {'image': images, 'label': np.arange(6) % 3}}
    seen = {}

    def watcher(name, trains):
        return Player(name, trains, model.loss, sgd(0.0))

    def run(*players):
        found = toys.play(Phase('p', 1, players, simultaneous=True), params, mutable, 1, batch)
        seen.update({name: float(value) for name, value in found[3].items()})
        return found[1]

    alone = run(watcher('encoder', 'encoder'))
    before = run(watcher('head', 'head'), watcher('encoder', 'encoder'))
    after = run(watcher('encoder', 'encoder'), watcher('head', 'head'))
    toys.same(before, alone)
    toys.same(after, alone)
    assert seen['head/loss'] == pytest.approx(seen['encoder/loss'], rel=1e-6)
    frozen = run(watcher('head', 'head'))
    toys.same(frozen, mutable)
    assert abs(seen['head/loss'] - seen['encoder/loss']) > 1e-3


# Gradients of one's own making.


def two_tasks(p):
    u, v = p['a']['w'], p['b']['w']
    return jnp.stack([(u - 1) ** 2 + v**2, 2 * (u + 1) ** 2 + (v - 1) ** 2])


def mgda(loss, own, key):
    """min over c in [0, 1] of |c g1 + (1 - c) g2|^2: Sener and Koltun 2018, Algorithm 1."""

    def value_twice(own):
        value, aux = loss(own)
        return value, (value, aux)

    jacobian, (value, aux) = jax.jacrev(value_twice, has_aux=True)(own)
    first, second = (jax.tree.map(lambda g, i=i: g[i], jacobian) for i in (0, 1))
    inner = lambda a, b: sum(jax.tree.leaves(jax.tree.map(jnp.vdot, a, b)))
    between = jax.tree.map(jnp.subtract, second, first)
    weight = jnp.clip(inner(between, second) / inner(between, between), 0, 1)
    gradient = jax.tree.map(lambda a, b: weight * a + (1 - weight) * b, first, second)
    return (value, aux), gradient


def test_a_vector_of_losses_with_a_gradient_of_its_own():
    player = Player('model', 'a|b', toys.simple(two_tasks), sgd(0.05), mgda)
    found, _, _, metrics = toys.play(Phase('p', 3, (player,)), toys.scalars(a=0.3, b=2), steps=3)
    u, v, values = 0.3, 2.0, []
    for _ in range(3):
        values = [(u - 1) ** 2 + v**2, 2 * (u + 1) ** 2 + (v - 1) ** 2]
        g1 = np.array([2 * (u - 1), 2 * v])
        g2 = np.array([4 * (u + 1), 2 * (v - 1)])
        c = np.clip((g2 - g1) @ g2 / ((g2 - g1) @ (g2 - g1)), 0, 1)
        u, v = np.array([u, v]) - 0.05 * (c * g1 + (1 - c) * g2)
    assert float(found['a']['w']) == pytest.approx(u, rel=1e-5)
    assert float(found['b']['w']) == pytest.approx(v, rel=1e-5)
    assert float(metrics['model/loss']) == pytest.approx(sum(values), rel=1e-5)


# Hyper-parameters and randomness.


def test_hyper_parameters_reach_loss_and_optimizer():
    loss = lambda params, mutable, batch, hp, key: (hp['weight'] * params['a']['w'], ({}, mutable))
    player = Player('x', 'a', loss, lambda hp: optax.sgd(hp['rate']))
    hp = {'weight': jnp.float32(3), 'rate': jnp.float32(0.5)}
    found, *_ = toys.play(Phase('p', 2, (player,)), toys.scalars(a=1), steps=2, hp=hp)
    assert float(found['a']['w']) == 1 - 2 * 3 * 0.5


def test_keys_differ_by_seed_purpose_and_step():
    data = lambda *args: tuple(np.asarray(jax.random.key_data(train.key_at(*args))).tolist())
    keys = {data(s, p, n) for s in (0, 1) for p in ('p/x/0', 'p/x/1', 'p/y/0') for n in (0, 1, 2)}
    assert len(keys) == 18
    traced = jax.jit(lambda s, n: jax.random.key_data(train.key_at(s, 'p', n)))
    np.testing.assert_array_equal(
        traced(jnp.uint32(2**32 - 1), 5), data(np.uint32(2**32 - 1), 'p', 5)
    )


def test_the_first_bad_loss_is_named_by_step_and_player():
    """Both players are lost at the same step, but the second because of the first."""

    def breaks(params, mutable, batch, hp, key):
        return params['z']['w'] * jnp.where(params['z']['w'] < 0.75, jnp.nan, 1.0), ({}, mutable)

    players = (
        Player('zeta', 'z', breaks, sgd(0.1)),
        Player('alpha', 'a', toys.simple(lambda p: p['a']['w'] * p['z']['w']), sgd(0.1)),
    )
    phase = Phase('p', 9, players)
    params = toys.scalars(a=1, z=1)
    values = train.enter_phase(phase, params, {}, None, {}, None)
    step = train.make_step(phase, params, {})
    step, members = jax.jit(train.tallied(step)), toys.members(0)
    state = train.TrainState(*values, *train.cleared(phase, ('zeta/loss', 'alpha/loss')))
    for number in range(6):
        state = step(state, None, {}, jnp.uint32(0), jnp.int32(number))
        if number < 3:
            train.check_finite(toys.stacked(state), members, phase)
    with pytest.raises(FloatingPointError, match=r"player 'zeta' is not finite at step 3;"):
        train.check_finite(toys.stacked(state), members, phase)


def test_the_earliest_of_several_bad_losses_is_named():
    phase = product_game()
    bad = {'x': np.array([-1, 7]), 'y': np.array([5, -1])}
    state = train.TrainState({}, {}, {}, {}, bad)
    with pytest.raises(FloatingPointError, match=r"'y' .* step 5 in member 0 of 2 \({'seed': 3}\)"):
        train.check_finite(state, toys.members(3, 4), phase)


def test_the_tally_sums_metrics():
    phase = product_game()
    params = toys.scalars(a=1, b=2)
    values = train.enter_phase(phase, params, {}, None, {}, None)
    run = jax.jit(train.tallied(train.make_step(phase, params, {})))
    state = train.TrainState(*values, *train.cleared(phase, ('x/loss', 'y/loss')))
    a, b, total = 1.0, 2.0, 0.0
    for number in range(3):
        state = run(state, None, {}, jnp.uint32(0), jnp.int32(number))
        total += a * b
        a -= 0.1 * b
        b -= 0.1 * a
    assert float(state.tally['x/loss']) == pytest.approx(total, rel=1e-6)
    assert int(state.bad['x']) == -1


@pytest.mark.parametrize('how', ['vmap', 'map'])
def test_lifting(how):
    fn = lambda mine, shared: {'y': mine['x'] * shared, 's': shared}
    for count in (1, 3):
        x = jnp.arange(2.0 * count).reshape(count, 2)
        found = jax.jit(train.lift(fn, count, how))({'x': x}, jnp.float32(3))
        np.testing.assert_array_equal(found['y'], x * 3)
        np.testing.assert_array_equal(found['s'], np.full(count, 3))


def test_unknown_lifting():
    with pytest.raises(ValueError, match="'vmap' and 'map'"):
        train.lift(lambda mine, shared: mine, 2, 'pmap')
