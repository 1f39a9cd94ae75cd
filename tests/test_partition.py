"""Patterns, splitting and lending: who moves what, and whose norms and dropouts are live."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import toys
from tljax import partition
from tljax.nets.apply import apply, variables

TREE = {
    'encoder': {
        'stem': {'kernel': 1, 'bias': 2},
        'stage1': {'conv': {'kernel': 3}, 'norm': {'scale': 4, 'bias': 5}},
        'stage10': {'conv': {'kernel': 6}},
    },
    'head': {'kernel': 7, 'bias': 8},
    'temperature': 9,
}
ALL = set(range(1, 10))

CASES = {
    '': set(),
    ' | ': set(),
    'head': {7, 8},
    '/head/': {7, 8},
    'encoder/stage1': {3, 4, 5},  # whole segments: not stage10
    'encoder/stage1*': {3, 4, 5, 6},
    'encoder/*/kernel': {1},  # one segment
    'encoder/**/kernel': {1, 3, 6},
    'head/**/kernel': {7},  # any number of segments, none included
    '**/bias': {2, 5, 8},
    '**/norm': {4, 5},
    '**/conv/**': {3, 6},
    '*': ALL,
    '**': ALL,
    'temperature': {9},
    'encoder | head': ALL - {9},
    'encoder|head|!encoder/stem|!**/bias': {3, 4, 6, 7},
    'encoder|!encoder/stage1|encoder/stage1/norm': {1, 2, 4, 5, 6},  # the last word counts
    'head/kerne?': {7},
}


@pytest.mark.parametrize('pattern', CASES)
def test_select(pattern):
    leaves = partition.flat(TREE)
    assert {leaves[path] for path in partition.select(TREE, pattern)} == CASES[pattern]


@pytest.mark.parametrize(
    ('pattern', 'culprit', 'hint'),
    [
        ('encoder/stge1', "pattern 'encoder/stge1' matches", 'encoder/stage1'),
        ('head|encoder/stem/kernl', "'encoder/stem/kernl' (in", 'encoder/stem/kernel'),
        ('encoder|!hed', "'!hed' (in", 'head'),
        ('xyz', "'xyz' matches", 'encoder, head, temperature'),
        ('encoder/stage1/kernel', "'encoder/stage1/kernel' matches", 'stage1/conv/kernel'),
        ('Head', "'Head' matches", 'head'),
    ],
)
def test_an_alternative_that_matches_nothing_is_an_error(pattern, culprit, hint):
    with pytest.raises(ValueError, match='matches no parameter') as error:
        partition.select(TREE, pattern)
    assert culprit in str(error.value)
    assert hint in str(error.value)


@pytest.mark.parametrize('pattern', ['!encoder', 'head|!head'])
def test_a_pattern_that_names_nothing_in_all_is_an_error(pattern):
    with pytest.raises(ValueError, match='nothing is left'):
        partition.select(TREE, pattern)


def test_matching_one_path():
    assert partition.matches('encoder/stem/kernel', 'encoder|!**/bias')
    assert not partition.matches('encoder/stem/bias', 'encoder|!**/bias')
    assert not partition.matches('headless/kernel', 'head')
    assert not partition.matches('head', 'nothing|of|this')


KEYS = st.sampled_from(['a', 'b', 'c', 'kernel'])
TREES = st.recursive(
    st.integers(), lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=12
)


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(KEYS, TREES, max_size=3), st.randoms(use_true_random=False))
def test_split_and_merge_are_inverse(tree, random):
    paths = partition.paths(tree)
    chosen = {path for path in paths if random.random() < 0.5}
    own, rest = partition.split(tree, chosen)
    assert set(partition.paths(own)) == chosen
    assert set(partition.paths(rest)) == set(paths) - chosen
    assert partition.merge(own, rest) == tree


def test_merge_prefers_what_was_moved():
    own, _ = partition.split(TREE, {'head/bias'})
    moved = jax.tree.map(lambda x: -x, own)
    merged = partition.merge(moved, TREE)
    assert merged['head'] == {'kernel': 7, 'bias': -8}
    assert merged['encoder'] == TREE['encoder']


# Lending. The net has two blocks of dense, norm and dropout; its second norm has no parameters.

X = np.random.RandomState(0).randn(7, 4).astype(np.float32) * 2 + 1


def made(**options):
    net = toys.Encoder(**options)
    params, mutable = variables(net, jax.random.key(0), X)
    # Running statistics that no batch has.
    shift = jax.tree.map(lambda x: x if x.ndim == 0 else x + 0.5, mutable)
    return net, {'encoder': params}, {'encoder': shift}


def by_hand(params, mutable, live):
    """The output of the encoder and the new statistics, in NumPy; `live` names norms."""
    x, fresh = X, {}
    for block in ('low', 'high'):
        own, stats = params['encoder'][block], mutable['encoder']['batch_stats'][block]['norm']
        x = x @ np.asarray(own['dense']['kernel'])
        mean, var = stats['mean'], stats['var']
        fresh[block] = {'mean': np.asarray(mean), 'var': np.asarray(var)}
        if block in live:
            mean, var = x.mean(0), x.var(0)
            fresh[block] = {k: 0.9 * stats[k] + 0.1 * v for k, v in (('mean', mean), ('var', var))}
        x = (x - mean) / np.sqrt(var + 1e-5)
        if 'norm' in own:
            x = x * own['norm']['scale'] + own['norm']['bias']
        x = np.tanh(x)
    return x, fresh


def applied(net, params, mutable, live, owned, key=0, **options):
    """The output under lending, and the statistics that are given back."""
    lent = partition.lend(mutable, live)
    y, lent = apply(net, 'encoder', params, lent, X, key=jax.random.key(key), **options)
    return y, partition.give_back(lent, mutable, owned)


def modules(params, mutable, pattern):
    return partition.trained_modules(params, mutable, partition.select(params, pattern))


@pytest.mark.parametrize(
    ('trains', 'live'),
    [
        ('encoder', {'low', 'high'}),
        ('encoder/high', {'high'}),  # no parameters of its own: goes with the block around it
        ('encoder/low/norm/scale', {'low'}),
        ('encoder/low/dense', set()),  # the norm's own parameters stay
        ('', set()),
    ],
)
def test_a_norm_is_live_if_and_only_if_it_is_trained(trains, live):
    net, params, mutable = made()
    chosen = modules(params, mutable, trains)
    y, after = applied(net, params, mutable, chosen, chosen)
    expected, fresh = by_hand(params, mutable, live)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    for block in ('low', 'high'):
        found = after['encoder']['batch_stats'][block]['norm']
        before = mutable['encoder']['batch_stats'][block]['norm']
        for name in ('mean', 'var'):
            if block in live:
                np.testing.assert_allclose(found[name], fresh[block][name], rtol=1e-5)
            else:
                np.testing.assert_array_equal(found[name], before[name])
    assert jax.tree.structure(after) == jax.tree.structure(mutable)


def test_only_the_player_that_trains_a_norm_writes_it():
    """Another player of the phase trains the encoder: this one uses batch statistics, no more."""
    net, params, mutable = made()
    live = modules(params, mutable, 'encoder')
    y, after = applied(net, params, mutable, live, owned=())
    np.testing.assert_allclose(y, by_hand(params, mutable, {'low', 'high'})[0], atol=1e-5)
    toys.same(after, mutable)


@pytest.mark.parametrize(
    ('trains', 'random'),
    [('encoder', True), ('encoder/high', True), ('encoder/low/norm', False), ('', False)],
)
def test_dropout_is_on_where_the_module_around_it_is_trained(trains, random):
    net, params, mutable = made(rate=0.5)
    live = modules(params, mutable, trains)
    # With 'encoder/low/norm' alone, the block 'low' around the dropout is trained in part.
    if trains == 'encoder/low/norm':
        assert 'encoder/low/drop' in live
        assert 'encoder/high/drop' not in live
        return
    ys = [applied(net, params, mutable, live, live, key)[0] for key in (1, 2)]
    assert bool((ys[0] != ys[1]).any()) is random


def test_frozen_dropout_inside_a_trained_encoder_is_off():
    net, params, mutable = made(rate=0.5)
    live = modules(params, mutable, 'encoder/high')
    low = [applied(net, params, mutable, live, live, key, until='low')[0] for key in (1, 2)]
    np.testing.assert_array_equal(*low)


def test_a_role_without_parameters_is_never_trained():
    mutable = {'pool': {'batch_stats': {'norm': {'mean': 0}}}, 'centroids': jnp.ones(3)}
    params = {'head': {'kernel': jnp.ones(2)}}
    assert modules(params, mutable, 'head') == frozenset()
    lent = partition.lend(mutable, ())
    assert set(lent['pool']) == {'kept_stats'}
    toys.same(partition.give_back(lent, mutable, ()), mutable)


def test_whatever_is_no_statistic_passes_through():
    mutable = {'bank': jnp.zeros(3), 'queue': {'features': jnp.zeros(2)}}
    lent = partition.lend(mutable, ())
    lent = {**lent, 'bank': lent['bank'] + 1}
    assert partition.give_back(lent, mutable, ())['bank'].sum() == 3


def test_lending_under_jit_grad_vmap_remat_and_slices():
    """Every way to run the partly frozen encoder gives what the plain one gives."""
    net, params, mutable = made(rate=0.0)
    live = modules(params, mutable, 'encoder/high')
    lent = partition.lend(mutable, live)
    cotangent = jnp.cos(jnp.arange(35.0).reshape(7, 5))

    def loss(params, net, x, sliced):
        key = jax.random.key(0)
        if not sliced:
            y, after = apply(net, 'encoder', params, lent, x, key=key)
        else:
            y, after = apply(net, 'encoder', params, lent, x, key=key, until='low')
            y, after = apply(net, 'encoder', params, after, y, key=key, since='low')
        return jnp.sum(y * cotangent), partition.give_back(after, mutable, live)

    def run(net, sliced):
        grad = jax.value_and_grad(lambda p, x: loss(p, net, x, sliced), has_aux=True)
        twice = jax.tree.map(lambda a: jnp.stack([a, a]), params)
        found = jax.jit(jax.vmap(grad, in_axes=(0, None)))(twice, X)
        for leaf in jax.tree.leaves(found):
            np.testing.assert_array_equal(leaf[0], leaf[1])
        return toys.one_of(found)

    (value, after), gradient = jax.value_and_grad(lambda p: loss(p, net, X, False), has_aux=True)(
        params
    )
    y, fresh = by_hand(params, mutable, {'high'})
    np.testing.assert_allclose(value, (y * cotangent).sum(), rtol=1e-4)
    stats = after['encoder']['batch_stats']
    np.testing.assert_allclose(stats['high']['norm']['mean'], fresh['high']['mean'], rtol=1e-4)
    np.testing.assert_array_equal(stats['low']['norm']['mean'], fresh['low']['mean'])
    for remat, sliced in ((False, False), (False, True), (True, False), (True, True)):
        (other, state), slopes = run(toys.Encoder(remat=remat), sliced)
        np.testing.assert_allclose(other, value, rtol=1e-5)
        toys.close(state, after, 1e-5)
        toys.close(slopes, gradient, 1e-4)


def test_a_slice_leaves_the_statistics_of_the_rest_alone():
    net, params, mutable = made()
    live = modules(params, mutable, 'encoder')
    _, after = applied(net, params, mutable, live, live, until='low')
    found, before = (t['encoder']['batch_stats'] for t in (after, mutable))
    toys.same(found['high'], before['high'])
    assert (found['low']['norm']['mean'] != before['low']['norm']['mean']).all()
