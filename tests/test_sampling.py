"""What is drawn: a permutation every epoch, the same numbers on host and device."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tljax import config, prepare, sampling

SEEDS = st.integers(0, 2**32 - 1)
quick = settings(deadline=None, max_examples=60)


def epoch(seed, stream, number, n):
    positions = np.arange(n, dtype=np.uint32) + np.uint32(n * number)
    return sampling.draw(seed, stream, positions, n, np)


def by_hand(seed, stream, position, n):
    """The published construction in Python's own integers."""
    full = 2**32 - 1

    def mix(x):
        x = ((x ^ (x >> 16)) * 0x85EBCA6B) & full
        x = ((x ^ (x >> 13)) * 0xC2B2AE35) & full
        return x ^ (x >> 16)

    half = next(h for h in range(1, 17) if 4**h >= n)
    key = mix(mix(seed ^ zlib.crc32(stream.encode())) + position // n * 0x9E3779B9 & full)
    x = position % n
    while True:
        left, right = x >> half, x % 2**half
        for i in range(1, 13):
            turn = mix((key + 0x9E3779B9 * i) & full)
            left, right = right, left ^ (mix(right ^ turn) % 2**half)
        x = (left << half) + right
        if x < n:
            return x


@quick
@given(SEEDS, st.integers(1, 5000), st.integers(0, 50))
def test_an_epoch_holds_every_example_once(seed, n, number):
    np.testing.assert_array_equal(np.sort(epoch(seed, 'source', number, n)), np.arange(n))


@quick
@given(SEEDS, st.integers(1, 2**30 - 1), st.integers(0, 2**32 - 1))
def test_draws_are_those_of_the_construction(seed, n, position):
    found = sampling.draw(seed, 'target', np.uint32(position), n, np)
    assert found == by_hand(seed, 'target', position, n)


@pytest.mark.parametrize('n', [1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 255, 256, 257, 4096])
def test_sizes_around_powers_of_two(n):
    for number in range(3):
        np.testing.assert_array_equal(np.sort(epoch(1, 's', number, n)), np.arange(n))


@pytest.mark.parametrize('n', [2**30 - 1, 2**29 + 1, 10**8])
def test_large_sizes(n):
    found = sampling.indices(3, 's', 7, 4000, n, np)
    assert len(set(found.tolist())) == 4000
    assert found.min() >= 0
    assert n * 0.99 < found.max() < n
    np.testing.assert_array_equal(found, sampling.indices(3, 's', 7, 4000, n, jnp))


@jax.jit
def on_device(seed, step, n):
    return sampling.indices(seed, 'source', step, 16, n, jnp)


@quick
@given(SEEDS, st.integers(0, 2**20), st.integers(1, 2**30 - 1))
def test_numpy_and_jax_agree_with_everything_traced(seed, step, n):
    found = on_device(jnp.uint32(seed), jnp.int32(step), jnp.int32(n))
    np.testing.assert_array_equal(found, sampling.indices(seed, 'source', step, 16, n, np))
    assert found.dtype == jnp.int32


def test_members_draw_what_they_draw_alone():
    seeds = jnp.arange(5, dtype=jnp.uint32)
    sizes = jnp.array([1, 10, 10, 100, 1000])
    together = jax.vmap(on_device, in_axes=(0, None, 0))(seeds, 3, sizes)
    for row, seed, n in zip(together, seeds, sizes, strict=True):
        np.testing.assert_array_equal(row, sampling.indices(int(seed), 'source', 3, 16, int(n), np))


def test_seeds_streams_and_epochs_differ():
    orders = [
        epoch(seed, stream, number, 100).tolist()
        for seed in range(10)
        for stream in ('source', 'target', 'source2')
        for number in range(10)
    ]
    # Independent permutations of 100 agree in one place on average, and hardly ever in ten.
    agree = [sum(map(int.__eq__, orders[0], other)) for other in orders[1:]]
    assert max(agree) < 10
    assert 0.5 < np.mean(agree) < 1.5
    assert len({tuple(order) for order in orders}) == len(orders)


def surprise(counts):
    """Pearson's statistic in standard deviations from what uniform counts would give."""
    expected = counts.sum() / counts.size
    degrees = counts.size - 1
    return (((counts - expected) ** 2 / expected).sum() - degrees) / np.sqrt(2 * degrees)


def many(n, seeds, numbers):
    """Epochs [S, n] of so many seeds and numbers; on the device, for speed."""
    positions = jnp.arange(n, dtype=jnp.uint32) + n * jnp.asarray(numbers, jnp.uint32)[:, None]
    seeds = jnp.broadcast_to(jnp.asarray(seeds, jnp.uint32), len(positions))
    draw = jax.vmap(lambda seed, position: sampling.draw(seed, 'source', position, n, jnp))
    return np.asarray(jax.jit(draw)(seeds, positions))


@pytest.mark.parametrize(('n', 'runs'), [(5, 20000), (12, 20000), (60, 5000)])
def test_permutations_are_uniform(n, runs):
    """Where an example lands, and where the first two do together, over seeds."""
    orders = many(n, np.arange(runs), np.zeros(runs))
    single = np.stack([np.bincount(column, minlength=n) for column in orders.T])
    assert abs(surprise(single)) < 5
    pairs = np.bincount(orders[:, 0] * n + orders[:, 1], minlength=n * n).reshape(n, n)
    assert not np.diag(pairs).any()
    assert abs(surprise(pairs[~np.eye(n, dtype=bool)])) < 5


def test_epochs_of_one_seed_are_uniform_too():
    orders = many(10, 0, np.arange(20000))
    counts = np.stack([np.bincount(column, minlength=10) for column in orders.T])
    assert abs(surprise(counts)) < 5
    follows = np.bincount(orders[:-1, 0] * 10 + orders[1:, 0], minlength=100)
    assert abs(surprise(follows)) < 5


def test_steps_wrap_over_epochs_without_a_gap():
    steps = [sampling.indices(0, 'source', step, 7, 10, np) for step in range(10)]
    epochs = np.concatenate(steps).reshape(7, 10)
    for number, order in enumerate(epochs):
        np.testing.assert_array_equal(order, epoch(0, 'source', number, 10))
    assert len({tuple(order) for order in epochs}) == 7


def test_a_batch_larger_than_the_set_holds_whole_epochs():
    counts = np.bincount(sampling.indices(0, 'source', 5, 12, 4, np), minlength=4)
    np.testing.assert_array_equal(counts, [3, 3, 3, 3])


def test_a_subset_draws_only_from_its_beginning():
    for n in (3, 30):
        assert sampling.indices(0, 'source', 11, 16, n, np).max() < n


def test_range():
    sampling.check_range(2**26, 63, 'source')
    with pytest.raises(ValueError, match=r"'source': 67108864 steps of 64 .* 2\*\*32"):
        sampling.check_range(2**26, 64, 'source')


def test_a_run_beyond_the_range_is_refused():
    c = config.default()
    c.net = {'name': 'mlp', 'widths': (4,), 'dense': 4, 'input': {'size': 8, 'channels': 1}}
    c.data.streams.source = config.stream('sklearn:digits')
    c.data.evaluate.test = config.held_out('sklearn:digits')
    c.steps = 2**26
    with pytest.raises(ValueError, match="'source': 67108864 steps"):
        prepare.prepare(c)
