"""Batch normalisation, dropout and stochastic depth in each of their states."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.nets.norm import BatchNorm, Dropout, StochasticDepth

X = jax.random.normal(jax.random.key(0), (6, 2, 2, 3)) * 3 + 1
NORM = BatchNorm(momentum=0.8, epsilon=1e-3)
PARAMS = {'scale': jnp.array([1.0, 2.0, 3.0]), 'bias': jnp.array([0.5, 0.0, -1.0])}
RUNNING = {'mean': jnp.array([0.1, 0.2, 0.3]), 'var': jnp.array([1.0, 2.0, 0.5])}


def by_hand(x, mean, var):
    return (x - mean) / np.sqrt(var + 1e-3) * PARAMS['scale'] + PARAMS['bias']


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_norm_initialises_without_updating():
    y, variables = NORM.init_with_output(jax.random.key(0), X)
    assert set(variables) == {'params', 'batch_stats'}
    np.testing.assert_array_equal(variables['batch_stats']['mean'], np.zeros(3))
    np.testing.assert_array_equal(variables['batch_stats']['var'], np.ones(3))
    close(y, X / np.sqrt(1 + 1e-3))


def test_live_norm_uses_and_moves_the_statistics():
    variables = {'params': PARAMS, 'batch_stats': RUNNING}
    y, new = NORM.apply(variables, X, mutable=['batch_stats'])
    rows = np.asarray(X).reshape(-1, 3)
    close(y, by_hand(X, rows.mean(0), rows.var(0)))
    close(new['batch_stats']['mean'], 0.8 * RUNNING['mean'] + 0.2 * rows.mean(0))
    close(new['batch_stats']['var'], 0.8 * RUNNING['var'] + 0.2 * rows.var(0))


def test_channels_first_are_the_same_transposed():
    variables = {'params': PARAMS, 'batch_stats': RUNNING}
    y, new = NORM.apply(variables, X, mutable=['batch_stats'])
    first, other = NORM.clone(axis=0).apply(variables, X.T, mutable=['batch_stats'])
    close(first.T, y)
    jax.tree.map(close, other, new)


@pytest.mark.parametrize('shape', [(5, 3), (5, 4, 4, 3)])
def test_moments_of_each_example_in_either_layout(shape):
    """[N, ..., C], and [C, ..., N] as the CPU's convolutions have it."""
    x = jax.random.normal(jax.random.key(0), shape)
    within = tuple(range(1, x.ndim - 1))
    for axis, images in ((-1, x), (0, jnp.moveaxis(x, (0, -1), (-1, 0)))):
        norm = BatchNorm(axis=axis)
        variables = norm.init(jax.random.key(1), images)
        _, found = norm.apply(variables, images, mutable=['moments'])
        np.testing.assert_allclose(found['moments']['mean'], x.mean(within), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found['moments']['var'], x.var(within), rtol=1e-5, atol=1e-6)


def test_kept_norm_only_reads_though_all_is_mutable():
    variables = {'params': PARAMS, 'kept_stats': RUNNING}
    y, new = NORM.apply(variables, X, mutable=['batch_stats', 'kept_stats'])
    close(y, by_hand(X, RUNNING['mean'], RUNNING['var']))
    assert not new.get('batch_stats')
    jax.tree.map(np.testing.assert_array_equal, new['kept_stats'], RUNNING)


@pytest.mark.parametrize('home', ['batch_stats', 'kept_stats'])
def test_norm_in_evaluation(home):
    y = NORM.apply({'params': PARAMS, home: RUNNING}, X)
    close(y, by_hand(X, RUNNING['mean'], RUNNING['var']))


def test_live_norm_differentiates_through_its_statistics():
    """Adding a constant to a channel, or scaling it, leaves the output alone."""
    norm = BatchNorm(epsilon=0.0)
    variables = norm.init(jax.random.key(0), X)
    weight = jax.random.normal(jax.random.key(1), X.shape)

    def loss(x):
        return jnp.sum(weight * norm.apply(variables, x, mutable=['batch_stats'])[0])

    gradient = jax.jit(jax.grad(loss))(X)
    close(gradient.sum((0, 1, 2)), 0)
    close((gradient * X).sum((0, 1, 2)), 0)


class Pair(nn.Module):
    """A norm that may be frozen before one that may be trained, each in a remat."""

    @nn.compact
    def __call__(self, x):
        x = nn.remat(BatchNorm)(name='first')(x)
        return nn.remat(BatchNorm)(name='second')(x)


def test_norms_of_one_net_are_live_one_by_one():
    """Also under jit, grad, vmap over models and remat."""
    net = Pair()
    variables = net.init(jax.random.key(0), X)
    stats = variables['batch_stats']
    kept = {'first': jax.tree.map(lambda a: a + 1, stats['first'])}
    lent = {
        'params': variables['params'],
        'kept_stats': kept,
        'batch_stats': {'second': stats['second']},
    }

    def loss(params, x):
        y, new = net.apply({**lent, 'params': params}, x, mutable=['batch_stats'])
        return jnp.sum(y**2 * x), new['batch_stats']

    twice = jax.tree.map(lambda a: jnp.stack([a, a]), lent['params'])
    run = jax.jit(jax.vmap(jax.grad(loss, has_aux=True), in_axes=(0, None)))
    gradient, new = run(twice, X)
    assert set(new) == {'second'}
    rows = (np.asarray(X).reshape(-1, 3) - 1) / np.sqrt(2 + 1e-5)
    close(new['second']['mean'][0], 0.1 * rows.mean(0))
    close(new['second']['var'][1], 0.9 + 0.1 * rows.var(0))
    assert gradient['second']['scale'].shape == (2, 3)


def apply(layer, variables, x, **options):
    return layer.apply(variables, x, rngs={'dropout': jax.random.key(3)}, **options)


def test_dropout_live():
    layer, x = Dropout(0.25), jnp.ones((64, 64))
    variables = layer.init(jax.random.key(0), x)
    assert variables['batch_stats']['on'].shape == ()
    y, new = apply(layer, variables, x, mutable=['batch_stats'])
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.75], rtol=1e-6)
    assert abs(float((y == 0).mean()) - 0.25) < 0.03
    jax.tree.map(np.testing.assert_array_equal, new, variables)


def test_dropout_not_live_is_the_identity():
    layer, x = Dropout(0.25), jnp.ones((4, 4))
    y, variables = layer.init_with_output(jax.random.key(0), x)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(layer.apply(variables, x), x)  # needs no rng either
    kept = {'kept_stats': variables['batch_stats']}
    np.testing.assert_array_equal(layer.apply(kept, x, mutable=['batch_stats'])[0], x)


def test_dropout_of_rate_zero_has_no_marker():
    assert not Dropout(0.0).init(jax.random.key(0), X)
    with pytest.raises(ValueError, match='rate'):
        Dropout(1.0).init(jax.random.key(0), X)


def test_stochastic_depth_drops_whole_examples():
    layer, x = StochasticDepth(0.5), jnp.ones((256, 2, 2, 3))
    variables = layer.init(jax.random.key(0), x)
    y, _ = apply(layer, variables, x, mutable=['batch_stats'])
    rows = np.asarray(y).reshape(256, -1)
    assert (rows == rows[:, :1]).all()
    assert set(np.unique(rows)) == {0.0, 2.0}
    assert 90 < (rows[:, 0] == 0).sum() < 166
    np.testing.assert_array_equal(layer.apply(variables, x), x)
