"""Episodes and pairs: balanced, without repeats, and the same alone, in a member, at any step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import runs
from tljax import config
from tljax.data import episodes, sources
from tljax.data import streams as data
from tljax.prepare import prepare
from tljax.train import key_at

SIZES = (7, 3, 6, 1, 9, 6)  # examples of each class


def stream(draw, members=1, sizes=SIZES, names=None):
    """Rows in mixed order; each image's four corners are its row, for turns to be told."""
    labels = np.random.RandomState(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    images = np.zeros((len(labels), 2, 2, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(len(labels)) + 1
    names = names or tuple(map(str, range(len(sizes))))
    source = sources.Source('toy', names, labels.astype(np.int32), images.__getitem__, (2, 2, 1))
    order = np.tile(np.arange(len(labels)), (members, 1))
    count = np.full(members, len(labels), np.int32)
    made = data.Stream('source', source, order, count, draw.batch, image=images, draw=draw)
    return data.check_batch(made, wrap=False)


def drawn(one, seed, step):
    draw = data.make_draw({'source': one}, key_at, lambda x: x)
    mine, shared = data.split_members({'source': one})
    mine = jax.tree.map(lambda x: jnp.asarray(x[0]), mine)
    batch = jax.jit(draw)(mine, jax.tree.map(jnp.asarray, shared), jnp.uint32(seed), step)
    return {name: np.asarray(x) for name, x in batch['source'].items()}


@pytest.mark.parametrize('text', ['episode:3x2x4', 'episode:2x1x1'])
def test_an_episode_has_different_classes_and_examples(text):
    draw = episodes.parse(text)
    one = stream(draw)
    seen = []
    for step in range(30):
        batch = drawn(one, 5, step)
        label, index = batch['label'], batch['index']
        support = label[: draw.way * draw.shot].reshape(draw.way, draw.shot)
        query = label[draw.way * draw.shot :].reshape(draw.way, draw.query)
        assert (support == support[:, :1]).all()
        assert (query == support[:, :1]).all()
        assert len(set(support[:, 0])) == draw.way
        assert len(set(index)) == draw.batch
        np.testing.assert_array_equal(one.source.labels[index], label)
        np.testing.assert_array_equal(batch['image'][:, 0, 0, 0], index + 1)
        seen.append(support[:, 0])
    enough = [c for c, size in enumerate(SIZES) if size >= draw.per_class]
    share = np.bincount(np.concatenate(seen), minlength=6)[enough]
    assert set(np.concatenate(seen)) == set(enough), 'a class with too few examples is left out'
    assert share.min() > 0.4 * share.max()


def test_pairs_are_balanced():
    draw = episodes.parse('pairs:40')
    one = stream(draw)
    counts = np.zeros(6, int)
    for step in range(10):
        batch = drawn(one, 3, step)
        a, b = batch['label'][:40], batch['label'][40:]
        np.testing.assert_array_equal(a == b, np.arange(40) % 2 == 0)
        assert (batch['index'][:40] != batch['index'][40:]).all()
        counts += np.bincount(batch['label'], minlength=6)
    assert counts[3] == 0, 'a class of one example has no pair'
    assert counts[[0, 1, 2, 4, 5]].min() > 0.5 * counts.max()


def test_draws_differ_by_seed_and_step_only():
    one = stream(episodes.parse('episode:3x1x2'))
    first = drawn(one, 1, 4)['index']
    np.testing.assert_array_equal(first, drawn(one, 1, 4)['index'])
    assert (first != drawn(one, 1, 5)['index']).any()
    assert (first != drawn(one, 2, 4)['index']).any()


def test_turns_are_classes():
    draw = episodes.parse('episode:12x1x1,rotated')
    batch = drawn(stream(draw), 0, 0)
    label, turn = batch['label'], batch['label'] // 6
    assert len(set(label[:12])) == 12
    assert len(set(turn)) > 1
    for image, index, k in zip(batch['image'], batch['index'], turn, strict=True):
        plain = np.zeros((2, 2, 1), np.uint8)
        plain[0, 0] = index + 1
        np.testing.assert_array_equal(image, np.rot90(plain, k))


ALPHABETS = ('b/1', 'a/1', 'b/2', 'c/1', 'a/2', 'b/3')  # of SIZES; c has one class, b three


def test_episodes_within_groups():
    one = stream(episodes.parse('episode:2x1x1,within'), names=ALPHABETS)
    seen = []
    for step in range(60):
        batch = drawn(one, 2, step)
        label = batch['label']
        assert label[0] != label[1]
        assert ALPHABETS[label[0]][0] == ALPHABETS[label[1]][0]
        np.testing.assert_array_equal(one.source.labels[batch['index']], label)
        assert batch['index'][0] != batch['index'][2]
        seen.extend(ALPHABETS[c] for c in label[:2])
    assert set(seen) == {'a/1', 'a/2', 'b/1', 'b/2', 'b/3'}
    assert 0.3 < np.mean([name[0] == 'a' for name in seen]) < 0.7, 'groups are drawn evenly'


def test_pairs_within_groups_that_are_turned():
    one = stream(episodes.parse('pairs:40,within,rotated'), names=ALPHABETS)
    batch = drawn(one, 0, 1)
    label, turn = batch['label'] % 6, batch['label'] // 6
    np.testing.assert_array_equal(turn[:40], turn[40:])
    assert set(turn) == {0, 1, 2, 3}
    np.testing.assert_array_equal(label[:40] == label[40:], np.arange(40) % 2 == 0)
    groups = np.array([ALPHABETS[c][0] for c in label])
    np.testing.assert_array_equal(groups[:40], groups[40:])
    assert set(groups) == {'a', 'b'}


def test_groups_too_small_are_refused():
    with pytest.raises(ValueError, match=r'4 classes of one group .* only 3 of 6'):
        stream(episodes.parse('episode:4x1x1,within'), names=ALPHABETS)


@pytest.mark.parametrize('text', ['episode:1x1x1', 'episode:5x1', 'pairs', 'pairs:1', 'quads:3'])
def test_what_is_no_draw_is_refused(text):
    with pytest.raises(ValueError, match=f"draw='{text}': expected 'episode:WAYxSHOTxQUERY'"):
        episodes.parse(text)


def test_too_few_classes_are_refused():
    with pytest.raises(ValueError, match=r'5 classes with 7 examples .* only 2 of 6'):
        stream(episodes.parse('episode:5x3x4'))


def test_fed_streams_are_refused():
    c = runs.run(**{'data.resident_mb': 0})
    c.data.streams.source.draw = 'pairs:4'
    with pytest.raises(ValueError, match=r'drawn from images in memory.*data.resident_mb'):
        prepare(config.checked(c))
