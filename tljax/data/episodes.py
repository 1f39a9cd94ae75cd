"""Batches with a structure: N-way K-shot episodes and balanced pairs, drawn on the device.

Like every draw they come from (seed, stream, step) alone: classes by one random-access permutation,
the examples of each class by another. Nothing is listed beforehand.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tljax import sampling
from tljax.types import Array, PyTree

_EPISODE = re.compile(r'episode:(\d+)x(\d+)x(\d+)(,within)?(,rotated)?')
_PAIRS = re.compile(r'pairs:(\d+)()()(,within)?(,rotated)?')


class Episode(NamedTuple):
    """`way` classes with `shot` support and `query` query examples each.

    A batch holds the supports first, class by class, then the queries, class by class.
    """

    way: int
    shot: int
    query: int
    within: bool = False  # all classes of one group, such as an alphabet
    # Turns by 90, 180 and 270 degrees are classes of their own; with `within`, groups of their own.
    rotated: bool = False

    @property
    def batch(self) -> int:
        return self.way * (self.shot + self.query)

    @property
    def per_class(self) -> int:
        return self.shot + self.query


class Pairs(NamedTuple):
    """`pairs` pairs, every other one of one class: row i of a batch and row i + pairs.

    Pairs 0, 2, ... are of the same class, two different examples; pairs 1, 3, ... of two classes.
    """

    pairs: int
    within: bool = False  # both classes of a pair are of one group
    rotated: bool = False

    @property
    def batch(self) -> int:
        return 2 * self.pairs

    @property
    def per_class(self) -> int:
        return 2


def parse(text: str) -> Episode | Pairs:
    """'episode:20x1x5' (way x shot x query) or 'pairs:64', with ',within' and ',rotated' behind.

    Raises:
      ValueError: it is neither, or has a number that cannot be.
    """
    if found := _EPISODE.fullmatch(text):
        way, shot, query = map(int, found.groups()[:3])
        if way >= 2 and shot >= 1 and query >= 1:
            return Episode(way, shot, query, bool(found[4]), bool(found[5]))
    if (found := _PAIRS.fullmatch(text)) and int(found[1]) >= 2:
        return Pairs(int(found[1]), bool(found[4]), bool(found[5]))
    raise ValueError(
        f"draw={text!r}: expected 'episode:WAYxSHOTxQUERY', such as 'episode:20x1x5', or "
        "'pairs:N', such as 'pairs:64', with ',within', ',rotated', ',within,rotated' or nothing "
        'behind; way and N of 2 or more'
    )


def groups_of(classes: Sequence[str]) -> np.ndarray:
    """[C] the number of each class's group: what stands before the last '/' of its name."""
    return np.unique([name.rpartition('/')[0] for name in classes], return_inverse=True)[1]


def tables(
    draw: Episode | Pairs,
    labels: np.ndarray,
    order: np.ndarray,
    count: np.ndarray,
    groups: np.ndarray,
    where: str,
) -> dict[str, np.ndarray]:
    """Where the examples of each class are, for every member.

    Args:
      draw: what is to be drawn.
      labels: [N] int.
      order: [M, K] rows that a member draws from, the first count[m] of them.
      count: [M].
      groups: [C] of each class; they count if the draw is `within` one.
      where: named in messages.

    Returns:
      'entry' [M, K], entries of `order`, class after class; 'begin' and 'size' [M, C], where each
      class begins there and its size, group after group; 'first' and 'classes' [M, G], the first
      class of each group there and how many follow; groups and classes that are too small come
      last and are not counted in 'groups' [M].

    Raises:
      ValueError: too few classes have as many examples as an episode or pair needs.
    """
    width = len(groups)
    groups = groups if draw.within else np.zeros(width, int)
    wanted, turns = getattr(draw, 'way', 2), 4 if draw.rotated and not draw.within else 1
    made = {name: [] for name in ('entry', 'begin', 'size', 'first', 'classes', 'groups')}
    for rows, n in zip(order, count, strict=True):
        own = labels[rows[:n]]
        size = np.bincount(own, minlength=width)
        enough = size >= draw.per_class
        classes = np.bincount(groups, enough).astype(int)
        fit = classes * turns >= wanted
        if not fit.any():
            one = ' of one group' if draw.within else ''
            raise ValueError(
                f'{where}: {wanted} classes{one} with {draw.per_class} examples each are needed, '
                f'but only {classes.max()} of {width} have as many; draw fewer, or give more'
            )
        enough &= fit[groups]
        placed = np.lexsort((np.arange(width), groups, ~enough))
        entry = np.concatenate([np.argsort(own, kind='stable'), np.arange(n, len(rows))])
        made['entry'].append(entry)
        made['begin'].append((np.cumsum(size) - size)[placed])
        made['size'].append(np.maximum(size[placed], 1))
        classes = classes[np.argsort(~fit, kind='stable')]
        made['first'].append(np.cumsum(classes) - classes)
        made['classes'].append(classes)
        made['groups'].append(fit.sum())
    return {name: np.asarray(values, np.int32) for name, values in made.items()}


def entries(draw: Episode | Pairs, table: PyTree, seed, stream: str, step) -> tuple[Array, Array]:
    """The entries of a member's order [B] at this step, and the quarter turns [B] of each.

    Args:
      draw: what is drawn.
      table: one member's part of `tables`.
      seed: the member's.
      stream: its name.
      step: the number of the step.
    """
    where, turn = _chosen(draw, table, _key(seed, f'{stream}/classes', step))
    keys = _keys(_key(seed, f'{stream}/examples', step), len(where))
    positions = jnp.arange(draw.per_class, dtype=jnp.uint32)
    pick = lambda key, n: sampling.permute(positions, key, n, jnp)
    place = jax.vmap(pick)(keys, table['size'][where]).astype(jnp.int32)
    entry = table['entry'][table['begin'][where][:, None] + place]  # [classes, per class]
    turns = jnp.broadcast_to(turn[:, None], entry.shape)
    arranged = _episode if isinstance(draw, Episode) else _pairs
    return arranged(draw, entry), arranged(draw, turns)


def _key(seed, purpose: str, step):
    number = jnp.asarray(step).astype(jnp.uint32) * jnp.uint32(0x9E3779B9)
    key = jnp.asarray(seed).astype(jnp.uint32) ^ jnp.uint32(sampling.stream_id(purpose))
    return sampling.mix(sampling.mix(key, jnp) + number, jnp)


def _keys(key, count: int) -> Array:
    numbers = jnp.arange(count, dtype=jnp.uint32)
    return sampling.mix(key + numbers * jnp.uint32(0x9E3779B9), jnp)


def _chosen(draw: Episode | Pairs, table: PyTree, key) -> tuple[Array, Array]:
    """Places in the table and quarter turns of classes: [way], all different; or [2 * pairs].

    Those of a pair are side by side and different.
    """
    turns = 4 if draw.rotated else 1
    of_group, of_class = (turns, 1) if draw.within else (1, turns)

    def drawn(key, size, count):
        every = jnp.arange(size, dtype=jnp.uint32)
        return sampling.permute(every, key, count, jnp).astype(jnp.int32)

    def together(key, size):
        """So many classes of one group."""
        among = table['groups']
        group = drawn(sampling.mix(key, jnp), 1, among * of_group)[0]
        first, count = table['first'][group % among], table['classes'][group % among]
        one = drawn(key, size, count * of_class)
        return first + one % count, group // among + one // count

    if isinstance(draw, Episode):
        return together(key, draw.way)
    where, turn = jax.vmap(lambda key: together(key, 2))(_keys(key, draw.pairs))
    return where.reshape(-1), turn.reshape(-1)


def _episode(draw: Episode, x: Array) -> Array:
    return jnp.concatenate([x[:, : draw.shot].reshape(-1), x[:, draw.shot :].reshape(-1)])


def _pairs(draw: Pairs, x: Array) -> Array:
    one, other = x[0::2], x[1::2]
    same = jnp.arange(draw.pairs) % 2 == 0
    return jnp.concatenate([one[:, 0], jnp.where(same, one[:, 1], other[:, 0])])


def turned(images: Array, turns: Array) -> Array:
    """Square images [N, S, S, C], each turned counter-clockwise by its number of quarter turns."""
    every: Sequence[Array] = [jnp.rot90(images, k, (1, 2)) for k in range(4)]
    return jnp.choose(turns[:, None, None, None], every, mode='clip')
