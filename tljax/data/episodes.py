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

_EPISODE = re.compile(r'episode:(\d+)x(\d+)x(\d+)(,rotated)?')
_PAIRS = re.compile(r'pairs:(\d+)()()(,rotated)?')


class Episode(NamedTuple):
    """`way` classes with `shot` support and `query` query examples each.

    A batch holds the supports first, class by class, then the queries, class by class.
    """

    way: int
    shot: int
    query: int
    rotated: bool = False  # turns by 90, 180 and 270 degrees are classes of their own

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
    rotated: bool = False

    @property
    def batch(self) -> int:
        return 2 * self.pairs

    @property
    def per_class(self) -> int:
        return 2


def parse(text: str) -> Episode | Pairs:
    """'episode:20x1x5' (way x shot x query) or 'pairs:64'; ',rotated' behind turns make classes.

    Raises:
      ValueError: it is neither, or has a number that cannot be.
    """
    if found := _EPISODE.fullmatch(text):
        way, shot, query = map(int, found.groups()[:3])
        if way >= 2 and shot >= 1 and query >= 1:
            return Episode(way, shot, query, bool(found[4]))
    if (found := _PAIRS.fullmatch(text)) and int(found[1]) >= 2:
        return Pairs(int(found[1]), bool(found[4]))
    raise ValueError(
        f"draw={text!r}: expected 'episode:WAYxSHOTxQUERY', such as 'episode:20x1x5', or "
        "'pairs:N', such as 'pairs:64', with ',rotated' behind or not; way and N of 2 or more"
    )


def tables(
    draw: Episode | Pairs, labels: np.ndarray, order: np.ndarray, count: np.ndarray, where: str
) -> dict[str, np.ndarray]:
    """Where the examples of each class are, for every member.

    Args:
      draw: what is to be drawn.
      labels: [N] int.
      order: [M, K] rows that a member draws from, the first count[m] of them.
      count: [M].
      where: named in messages.

    Returns:
      'entry' [M, K], entries of `order`, class after class; 'begin' and 'size' [M, C], where each
      class begins there and its size, classes with too few examples last and not counted in
      'classes' [M].

    Raises:
      ValueError: too few classes have as many examples as an episode or pair needs.
    """
    width = int(labels.max()) + 1
    made = {name: [] for name in ('entry', 'begin', 'size', 'classes')}
    for rows, n in zip(order, count, strict=True):
        own = labels[rows[:n]]
        size = np.bincount(own, minlength=width)
        enough = size >= draw.per_class
        wanted, turns = getattr(draw, 'way', 2), 4 if draw.rotated else 1
        if enough.sum() * turns < wanted:
            raise ValueError(
                f'{where}: {wanted} classes with {draw.per_class} examples each are needed, but '
                f'only {int(enough.sum())} of {width} have as many; draw fewer, or give more'
            )
        first = np.argsort(~enough, kind='stable')
        entry = np.concatenate([np.argsort(own, kind='stable'), np.arange(n, len(rows))])
        made['entry'].append(entry)
        made['begin'].append((np.cumsum(size) - size)[first])
        made['size'].append(np.maximum(size[first], 1))
        made['classes'].append(enough.sum())
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
    count = table['classes'].astype(jnp.uint32)
    chosen = _chosen(draw, count * jnp.uint32(4 if draw.rotated else 1), seed, stream, step)
    turn, where = (chosen // count).astype(jnp.int32), (chosen % count).astype(jnp.int32)
    keys = _keys(_key(seed, f'{stream}/examples', step), len(chosen))
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


def _chosen(draw, count, seed, stream, step) -> Array:
    """Classes: [way], all different; or [2 * pairs], those of a pair side by side and different."""
    key = _key(seed, f'{stream}/classes', step)
    if isinstance(draw, Episode):
        return sampling.permute(jnp.arange(draw.way, dtype=jnp.uint32), key, count, jnp)
    keys = _keys(key, draw.pairs)
    pick = lambda key: sampling.permute(jnp.arange(2, dtype=jnp.uint32), key, count, jnp)
    return jax.vmap(pick)(keys).reshape(-1)


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
