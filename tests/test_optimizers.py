"""Optimizers from config against formulas written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax import config, optimizers

HP = {'rate': 0.1, 'momentum': 0.9, 'weight_decay': 0.01}
PARAMS = {
    'encoder': {
        'conv': {'kernel': jnp.arange(6.0).reshape(2, 3) - 2, 'bias': jnp.ones(3)},
        'norm': {'scale': jnp.full(3, 2.0), 'bias': jnp.ones(3)},
    },
    'head': {'kernel': jnp.ones((3, 2)), 'bias': jnp.zeros(2)},
}


def options(**changes):
    c = config.default().optimizer
    c.update(changes)
    return c


def gradients(steps, seed=0):
    """So many trees of noise, shaped like the parameters."""
    random = np.random.RandomState(seed)
    draw = lambda p: jnp.asarray(random.randn(*p.shape), jnp.float32)
    return [jax.tree.map(draw, PARAMS) for _ in range(steps)]


def descend(optimizer, given, hp=HP, params=PARAMS):
    """The parameters after every update."""
    hp = {name: jnp.float32(value) for name, value in hp.items()}
    rule, seen = optimizer(hp), []
    state = rule.init(params)
    for gradient in given:
        updates, state = rule.update(gradient, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        seen.append(params)
    return seen


def close(found, expected, rtol=1e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6), found, expected
    )


def torch_sgd(given, rate, momentum, decay, factor=lambda step: 1.0, nesterov=False):
    """torch.optim.SGD: g += decay * p; b = momentum * b + g; p -= rate * b (Nesterov: g + m b)."""
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), PARAMS)
    buffer = jax.tree.map(np.zeros_like, params)
    for step, gradient in enumerate(given):
        g = jax.tree.map(lambda g, p: g + decay * p * (p.ndim > 1), gradient, params)
        buffer = jax.tree.map(lambda b, g: momentum * b + g, buffer, g)
        move = jax.tree.map(lambda g, b: g + momentum * b, g, buffer) if nesterov else buffer
        params = jax.tree.map(lambda p, m: p - rate * factor(step) * m, params, move)
    return params


@pytest.mark.parametrize(('momentum', 'decay'), [(0.0, 0.0), (0.9, 0.0), (0.0, 0.1), (0.9, 0.1)])
@pytest.mark.parametrize('name', ['sgd', 'nesterov'])
def test_sgd_is_that_of_torch(momentum, decay, name):
    given, hp = gradients(6), {'rate': 0.1, 'momentum': momentum, 'weight_decay': decay}
    found = descend(optimizers.build(options(name=name), 6), given, hp)[-1]
    close(found, torch_sgd(given, 0.1, momentum, decay, nesterov=name == 'nesterov'))


def test_decay_spares_the_tokens_of_a_vit():
    tree = {'embed': {'class_token': jnp.ones((1, 1, 4)), 'positions': jnp.ones((1, 5, 4))}}
    tree |= {'block1': {'out': {'kernel': jnp.ones((4, 4)), 'bias': jnp.ones(4)}}}
    assert optimizers.decayed(tree) == {
        'embed': {'class_token': False, 'positions': False},
        'block1': {'out': {'kernel': True, 'bias': False}},
    }


def test_decay_spares_biases_and_norms():
    none = [jax.tree.map(jnp.zeros_like, PARAMS)]
    (found,) = descend(optimizers.build(options(), 1), none, HP)
    shrunk = jax.tree.map(lambda a, b: bool((a != b).any()), found, PARAMS)
    assert shrunk == {
        'encoder': {
            'conv': {'kernel': True, 'bias': False},
            'norm': {'scale': False, 'bias': False},
        },
        'head': {'kernel': True, 'bias': False},
    }
    np.testing.assert_allclose(found['head']['kernel'], 1 - 0.1 * 0.01)


@pytest.mark.parametrize('decoupled', [False, True])
def test_adam(decoupled):
    """Kingma and Ba 2015, Algorithm 1; decoupled: Loshchilov and Hutter 2019, Algorithm 2."""
    given, hp = gradients(5), {**HP, 'weight_decay': 0.1}
    found = descend(optimizers.build(options(name='adamw' if decoupled else 'adam'), 5), given, hp)
    p = np.asarray(PARAMS['head']['kernel'], np.float64)
    m = v = np.zeros_like(p)
    for t, gradient in enumerate(given, start=1):
        g = np.asarray(gradient['head']['kernel'], np.float64)
        g = g if decoupled else g + 0.1 * p
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        p = p - 0.1 * (step + 0.1 * p * decoupled)
    np.testing.assert_allclose(found[-1]['head']['kernel'], p, rtol=1e-4)


SHAPES = {
    'constant': (options(), {0: 1, 50: 1, 100: 1}),
    'cosine': (options(schedule='cosine'), {0: 1, 25: 0.8535534, 50: 0.5, 75: 0.1464466, 100: 0}),
    'step': (
        options(schedule='step', boundaries=(30, 60)),
        {0: 1, 29: 1, 30: 0.1, 59: 0.1, 60: 0.01, 99: 0.01},
    ),
    'annealed': (
        options(schedule='annealed'),
        {0: 1, 50: 6**-0.75, 100: 11**-0.75, 130: 11**-0.75},
    ),
    'warm_constant': (options(warmup=4), {0: 0, 1: 0.25, 3: 0.75, 4: 1, 99: 1}),
    'warm_cosine': (
        options(schedule='cosine', warmup=20),
        {0: 0, 10: 0.5, 20: 1, 40: 0.8535534, 60: 0.5, 100: 0},
    ),
    'warm_step': (
        options(schedule='step', boundaries=(30,), warmup=10, factor=0.5),
        {5: 0.5, 10: 1, 29: 1, 30: 0.5, 99: 0.5},
    ),
    'warm_annealed': (
        options(schedule='annealed', warmup=20),
        {10: 0.5, 20: 1, 60: 6**-0.75, 100: 11**-0.75},
    ),
}


@pytest.mark.parametrize('name', SHAPES)
def test_schedules(name):
    """At hand-computed updates of a phase of 100."""
    config, points = SHAPES[name]
    shape = optimizers.schedule(config, 100)
    for count, expected in points.items():
        assert float(shape(jnp.int32(count))) == pytest.approx(expected, abs=1e-6), count


def test_the_schedule_scales_the_rate_of_each_update():
    given, hp = gradients(4), {**HP, 'weight_decay': 0.0}
    found = descend(optimizers.build(options(schedule='cosine'), 4), given, hp)[-1]
    factor = lambda step: 0.5 * (1 + np.cos(np.pi * step / 4))
    close(found, torch_sgd(given, 0.1, 0.9, 0.0, factor))


def test_layer_wise_rates():
    """Where patterns overlap their factors multiply, so that their order does not matter."""
    rates = {'encoder': 0.1, '**/bias': 0.5, '**/norm|!**/scale': 3}
    given, hp = gradients(1), {**HP, 'weight_decay': 0.0}
    (found,) = descend(optimizers.build(options(rates=rates), 1), given, hp)
    factors = {
        'encoder': {'conv': {'kernel': 0.1, 'bias': 0.05}, 'norm': {'scale': 0.1, 'bias': 0.15}},
        'head': {'kernel': 1.0, 'bias': 0.5},
    }
    close(found, jax.tree.map(lambda p, g, f: p - 0.1 * f * g, PARAMS, given[0], factors))
    backwards = dict(reversed(rates.items()))
    assert optimizers.multiplier('encoder/norm/bias', backwards) == pytest.approx(0.15)
    assert optimizers.multiplier('encoders/kernel', rates) == 1.0


def test_layer_wise_rates_also_bound_decoupled_decay():
    rates, none = {'encoder': 0.0}, [jax.tree.map(jnp.zeros_like, PARAMS)]
    (found,) = descend(optimizers.build(options(name='adamw', rates=rates), 1), none, HP)
    close(found['encoder'], PARAMS['encoder'])
    assert (found['head']['kernel'] < 1).all()


@pytest.mark.parametrize('scale', [0.01, 5.0])
def test_clipping_is_by_the_global_norm(scale):
    given = [jax.tree.map(lambda g: scale * g, gradients(1)[0])]
    hp = {**HP, 'weight_decay': 0.0}
    (found,) = descend(optimizers.build(options(clip=2.0), 1), given, hp)
    norm = np.sqrt(sum((np.asarray(g) ** 2).sum() for g in jax.tree.leaves(given)))
    assert bool(norm > 2) is (scale > 1)
    factor = min(1, 2 / norm)
    close(found, jax.tree.map(lambda p, g: p - 0.1 * factor * g, PARAMS, given[0]))


@pytest.mark.parametrize('extra', [{}, {'clip': 0.5}, {'schedule': 'cosine'}, {'name': 'adamw'}])
def test_two_accumulated_halves_are_one_whole(extra):
    """Means of half batches; schedules count updates."""
    halves = gradients(8)
    wholes = [jax.tree.map(lambda a, b: (a + b) / 2, *halves[i : i + 2]) for i in range(0, 8, 2)]
    found = descend(optimizers.build(options(accumulate=2, **extra), 8), halves)
    expected = descend(optimizers.build(options(**extra), 4), wholes)
    for update in range(4):
        before = expected[update - 1] if update else PARAMS
        close(found[2 * update], before, rtol=0)
        close(found[2 * update + 1], expected[update], rtol=1e-4)


@pytest.mark.parametrize('name', ['sgd', 'nesterov', 'adam', 'adamw'])
def test_hyper_parameters_are_traced_and_vmapped(name):
    given = gradients(3)
    build = optimizers.build(options(name=name, schedule='cosine', clip=1.0, rates={'head': 2}), 3)
    sweep = {
        'rate': jnp.array([0.1, 0.01]),
        'momentum': jnp.array([0.0, 0.9]),
        'weight_decay': jnp.array([0.1, 0.0]),
    }
    together = jax.jit(jax.vmap(lambda hp: descend(build, given, hp)[-1]))(sweep)
    for m in range(2):
        alone = descend(build, given, {name: float(value[m]) for name, value in sweep.items()})
        close(jax.tree.map(lambda x: x[m], together), alone[-1])


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'name': 'sgdd'}, "unknown optimizer 'sgdd'.*did you mean 'sgd'"),
        ({'schedule': 'cosin'}, "unknown schedule 'cosin'.*did you mean 'cosine'"),
        ({'accumulate': 0}, 'accumulate is 0; expected 1 or more'),
        ({'clip': -1.0}, 'clip is -1.0; expected 0'),
        ({'warmup': -1}, 'warmup is -1; expected 0'),
        ({'schedule': 'step'}, 'boundaries'),
        ({'schedule': 'step', 'boundaries': (5, 3)}, 'boundaries'),
        ({'schedule': 'step', 'boundaries': (3,), 'warmup': 4}, 'boundaries'),
        ({'schedule': 'step', 'boundaries': (5,), 'factor': -1.0}, 'factor'),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        optimizers.build(options(**changes), 10)


def test_nothing_to_do():
    """A phase without steps builds its optimizer all the same."""
    assert optimizers.build(options(schedule='cosine'), 0)
