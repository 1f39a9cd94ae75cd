"""Streams: which rows are drawn, resident or fed, and walks over all of them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from tljax import sampling, sharding, train
from tljax.data import streams as data

OF = toys.source(60)
IMAGES = np.stack([OF.fetch(row) for row in range(60)])


def few(fed=False, **options):
    """Two members: 2 labels per class of seed 0, 5 of seed 1."""
    order, count = data.select(OF, [0, 1], [2, 5])
    stream = data.Stream('source', OF, order, count, 7, **options)
    return stream if fed else data.resident(stream, 1024)


# Subsets.


def test_all_examples():
    order, count = data.select(OF, [3, 4], [0, 0])
    np.testing.assert_array_equal(order, [np.arange(60)] * 2)
    np.testing.assert_array_equal(count, [60, 60])


def test_few_labels_are_balanced_and_nested():
    order, count = data.select(OF, [0, 0, 1], [1, 4, 4])
    np.testing.assert_array_equal(count, [3, 12, 12])
    np.testing.assert_array_equal(order[0], order[1])
    assert set(order[1]) != set(order[2])
    for row, size in zip(order, count, strict=True):
        np.testing.assert_array_equal(np.bincount(OF.labels[row[:size]]), [size // 3] * 3)
    alone, _ = data.select(OF, [0], [1])
    np.testing.assert_array_equal(alone[0], order[0][:3])


def test_a_class_with_too_few_labels_is_named():
    named = OF._replace(classes=('ant', 'bee', 'cow'), labels=np.minimum(OF.labels, 1))
    with pytest.raises(ValueError, match="class 'cow' has only 0 examples"):
        data.select(named, [0], [2])


def test_all_and_few_do_not_mix():
    with pytest.raises(ValueError, match='labels_per_class: 0'):
        data.select(OF, [0, 1], [0, 5])


def test_a_batch_larger_than_the_subset():
    stream = few()
    with pytest.raises(
        ValueError, match=r"'source': a batch of 7 .* the 6 examples of toy; .*wrap"
    ):
        data.check_batch(stream, wrap=False)
    assert data.check_batch(stream, wrap=True) is stream
    assert data.check_batch(stream._replace(batch=6), wrap=False)


def test_what_is_resident_goes_by_size():
    kilobyte = 60 * 4 / 2**20
    assert data.resident(few(fed=True), kilobyte).resident
    assert not data.resident(few(fed=True), kilobyte / 2).resident


# Draws.


def drawn(stream, step, seeds=(5, 9), lift='vmap'):
    """A batch of every member, as the compiled program draws it."""
    streams = {'source': stream} if isinstance(stream, data.Stream) else stream
    draw = data.make_draw(streams, train.key_at, lambda x: x)
    mine, shared = data.split_members(streams)

    def one(mine, shared):
        return draw(mine['streams'], shared, mine['seed'], step)

    mine = {'streams': mine, 'seed': jnp.asarray(seeds, jnp.uint32)}
    lifted = jax.jit(train.lift(one, len(seeds), lift))
    return jax.tree.map(np.asarray, lifted(mine, shared))


def test_a_draw_is_what_sampling_says():
    stream = few()
    for step in (0, 3):
        found = drawn(stream, step)['source']
        assert set(found) == {'image', 'label', 'index'}
        for m, seed in enumerate((5, 9)):
            entry = sampling.indices(seed, 'source', step, 7, stream.count[m], np)
            rows = stream.order[m][entry]
            np.testing.assert_array_equal(found['index'][m], rows)
            np.testing.assert_array_equal(found['label'][m], OF.labels[rows])
            np.testing.assert_array_equal(found['image'][m], IMAGES[rows])


def test_a_draw_does_not_depend_on_the_other_streams():
    alone = drawn(few(), 2)['source']
    other = toys.stream('target', batch=3, members=2, labelled=False)
    both = drawn({'target': other, 'source': few()}, 2)
    toys.same(both['source'], alone)
    assert set(both['target']) == {'image', 'index'}


def test_labels_of_an_unlabelled_stream_are_dropped():
    labelled, without = drawn(few(), 1)['source'], drawn(few(labelled=False), 1)['source']
    assert set(without) == {'image', 'index'}
    np.testing.assert_array_equal(labelled['index'], without['index'])


def test_augmentation_sees_floats_and_a_key_of_seed_stream_and_step():
    def shift(key, image):
        assert image.dtype == jnp.float32
        return image + jax.random.uniform(key)

    found = drawn(few(augment=shift), 4)['source']
    for m, seed in enumerate((5, 9)):
        key = train.key_at(jnp.uint32(seed), 'augment/source', 4)
        expected = IMAGES[found['index'][m]] / 255 + float(jax.random.uniform(key))
        np.testing.assert_allclose(found['image'][m], expected, rtol=1e-6)


def test_cached_activations_follow_the_rows():
    stream = few()
    activations = np.arange(2.0 * 15).reshape(2, 15, 1)
    found = drawn(stream._replace(image=activations, cached=True), 3)['source']
    for m, seed in enumerate((5, 9)):
        entry = sampling.indices(seed, 'source', 3, 7, stream.count[m], np)
        np.testing.assert_array_equal(found['image'][m], activations[m][entry])
        np.testing.assert_array_equal(found['index'][m], stream.order[m][entry])


def test_images_become_floats_of_one():
    np.testing.assert_allclose(data.unit(jnp.uint8([0, 51, 255])), [0, 0.2, 1])
    np.testing.assert_array_equal(data.unit(jnp.array([7.5])), [7.5])


@pytest.mark.parametrize('start', [0, 3])
def test_fed_batches_are_the_resident_draws(start):
    streams = {'source': few(fed=True), 'resident': toys.stream('resident', members=2)}
    batches = list(data.feed(streams, np.array([5, 9], np.uint32), start, 6))
    assert len(batches) == 6 - start
    for step, batch in zip(range(start, 6), batches, strict=True):
        assert set(batch) == {'source'}
        toys.same(batch['source'], drawn(few(), step)['source'])


# Walks over a whole stream.


@pytest.mark.parametrize('fed', [False, True])
@pytest.mark.parametrize('same', [False, True])
def test_blocks_hold_everything_once_in_order(fed, same):
    stream = toys.stream(of=OF, members=2, fed=fed) if same else few(fed=fed)
    size, total = 7, stream.order.shape[1]
    blocks = list(data.blocks(stream, size))
    assert len(blocks) == -(-total // size)
    for m in range(2):
        rows = []
        for mine, shared in blocks:
            assert not (mine if same else shared)
            one = shared if same else jax.tree.map(lambda x: x[m], mine)
            assert set(one) == {'image', 'label', 'index', 'valid'}
            assert all(len(value) == size for value in one.values())
            np.testing.assert_array_equal(one['image'], IMAGES[one['index']])
            np.testing.assert_array_equal(one['label'], OF.labels[one['index']])
            rows += one['index'][one['valid']].tolist()
        assert rows == stream.order[m, : stream.count[m]].tolist()


def test_blocks_of_an_unlabelled_stream_have_no_labels():
    ((_, shared), *_) = data.blocks(toys.stream(labelled=False), 8)
    assert 'label' not in shared


@pytest.mark.parametrize('size', [4, 15, 100])
def test_walks_inside_and_outside_of_a_program_are_one(size):
    stream = few()
    summary = lambda batch: {
        'total': data.unit(batch['image']).sum((1, 2, 3)) * batch['valid'],
        'label': batch['label'],
        'index': batch['index'],
    }
    mine, shared = data.split_members({'source': stream})
    mesh = sharding.mesh(1)

    def inside(mine, shared):
        return data.traced_over({'source': stream}, mine, shared, size, mesh)('source', summary)

    inside = jax.jit(train.lift(inside, 2))(mine, shared)
    lift = partial(train.lift, members=2)
    outside = data.over_blocks(lambda _, batch: summary(batch), stream, lift, size)(np.zeros(2))
    np.testing.assert_array_equal(outside['index'], stream.order)
    for m, count in enumerate(stream.count):
        expected = IMAGES[stream.order[m]].sum((1, 2, 3)) / 255 * (np.arange(15) < count)
        for found in (inside, outside):
            np.testing.assert_allclose(found['total'][m], expected, rtol=1e-5)
            np.testing.assert_array_equal(found['index'][m], stream.order[m])
            np.testing.assert_array_equal(found['label'][m], OF.labels[stream.order[m]])


def test_a_host_decodes_its_own_rows_alone():
    stream, own = toys.stream(of=OF), np.arange(4, 8)
    found = [shared['index'] for _, shared in data.blocks(stream, 10, own=own)]
    np.testing.assert_array_equal(found, np.arange(60).reshape(6, 10)[:, 4:8])
    fed = toys.stream('target', OF, 12, fed=True)
    seeds = np.zeros(1, np.uint32)
    whole, part = (
        list(data.feed({'target': fed}, seeds, 2, 5, wanted)) for wanted in (None, {'target': own})
    )
    for every, mine in zip(whole, part, strict=True):
        jax.tree.map(
            lambda x, y: np.testing.assert_array_equal(x[:, 4:8], y),
            every['target'],
            mine['target'],
        )
