"""Named streams: which examples of a source a run draws, and from where they come.

A *resident* stream keeps its images on the device and is drawn from inside the compiled step; a
*fed* one is decoded by Grain on the host, a batch a step. Both draw the same rows at the same
(seed, stream, step), because both ask `sampling.indices`.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from tljax import sampling, sharding
from tljax.data import episodes, reader, sources, subsets
from tljax.types import Array, PyTree


class Stream(NamedTuple):
    """A source, the rows each member draws of it, and how.

    Exactly one of three holds: `image` is None (fed); `image` is [N, ...], a row each (resident);
    `cached`, and `image` is [M, K, ...]: entry k belongs to row `order[m, k]`.
    """

    name: str
    source: sources.Source
    order: np.ndarray  # [M, K] int32 rows of the source; member m draws from the first count[m]
    count: np.ndarray  # [M] int32
    batch: int
    labelled: bool = True  # False: labels are dropped here and no loss ever sees them
    augment: Callable | None = None
    image: np.ndarray | Array | None = None
    cached: bool = False
    draw: episodes.Episode | episodes.Pairs | None = None  # None: examples, in a shuffled order
    protocol: str = ''  # of evaluation on classes that are not the run's own

    @property
    def resident(self) -> bool:
        return self.image is not None


def select(
    source: sources.Source, seeds: Sequence[int], labels_per_class: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows `order` [M, K] and `count` [M] of each member's subset; 0 labels per class means all.

    Subsets of one seed are nested: 5 labels per class contain the 1.
    """
    classes, most = source.classes, max(labels_per_class)
    if not most:
        every = np.arange(len(source.labels), dtype=np.int32)
        return np.tile(every, (len(seeds), 1)), np.full(len(seeds), len(every), np.int32)
    if not all(labels_per_class):
        raise ValueError('labels_per_class: 0 (all) cannot be a member beside other numbers')
    orders = {s: subsets.few_shot_order(source.labels, most, classes, s) for s in set(seeds)}
    order = np.stack([orders[s] for s in seeds])
    return order, np.asarray(labels_per_class, np.int32) * len(classes)


def check_batch(stream: Stream, wrap: bool) -> Stream:
    """Refuses a batch that would hold an example twice, unless `wrap` allows it."""
    if stream.draw:
        episodes.tables(stream.draw, *_listed(stream))
        return stream
    smallest = int(stream.count.min())
    if stream.batch > smallest and not wrap:
        raise ValueError(
            f'stream {stream.name!r}: a batch of {stream.batch} is larger than the {smallest} '
            f'examples of {stream.source.name}; use a batch of at most {smallest}, or set '
            'data.wrap=True to let a batch hold an example more than once'
        )
    return stream


def resident(stream: Stream, limit_mb: float) -> Stream:
    """The stream with its images in memory if they take at most `limit_mb`, else unchanged."""
    bytes_each = int(np.prod(stream.source.image)) * stream.source.dtype.itemsize
    size = len(stream.source.labels) * bytes_each / 2**20
    if size > limit_mb and stream.draw:
        raise ValueError(
            f'stream {stream.name!r}: episodes and pairs are drawn from images in memory, and '
            f'{stream.source.name} takes {size:.0f} MB; set data.resident_mb to that or more, or '
            'data.size to fewer pixels'
        )
    if size > limit_mb:
        return stream
    return stream._replace(image=sources.arrays(stream.source))


def split_members(streams: Mapping[str, Stream]) -> tuple[PyTree, PyTree]:
    """What the compiled call reads of resident streams: per member, and shared by all members."""
    mine, shared = {}, {}
    for name, stream in streams.items():
        if not stream.resident:
            continue
        mine[name] = {'order': stream.order, 'count': stream.count}
        if stream.draw:
            mine[name]['table'] = episodes.tables(stream.draw, *_listed(stream))
        shared[name] = {'label': stream.source.label}
        (mine if stream.cached else shared)[name]['image'] = stream.image
    return mine, shared


def _listed(stream: Stream) -> tuple:
    where = f'stream {stream.name!r} ({stream.source.name})'
    groups = episodes.groups_of(stream.source.classes)
    return stream.source.labels, stream.order, stream.count, groups, where


def _structured(stream: Stream, mine: PyTree, shared: PyTree, seed, step, constrain) -> dict:
    """An episode or pairs; the turns of a class are classes of their own, after all others."""
    entry, turns = episodes.entries(stream.draw, mine['table'], seed, stream.name, step)
    found = _examples(stream, mine, shared, constrain(entry))
    if stream.draw.rotated:
        found['image'] = episodes.turned(found['image'], turns)
        found['label'] += turns * len(stream.source.classes)
    return found


def _examples(stream: Stream, mine: PyTree, shared: PyTree, entry: Array) -> dict[str, Array]:
    """Entries of one member's order of a resident stream, labels included."""
    row = mine['order'][entry]
    image = mine['image'][entry] if stream.cached else shared['image'][row]
    label = jax.tree.map(lambda values: values[row], shared['label'])
    return {'image': image, 'label': label, 'index': row}


def make_draw(streams: Mapping[str, Stream], key_at: Callable, constrain: Callable) -> Callable:
    """`draw(mine, shared, seed, step) -> Batch` for one member, run inside the compiled call.

    Args:
      streams: by name; fed ones find their decoded batch in `mine`.
      key_at: (seed, purpose, step) -> key for augmentation.
      constrain: sharding constraint for arrays with examples along dimension 0.
    """

    def rows_of(stream, mine, shared, seed, step):
        if not stream.resident:
            return dict(mine)
        if stream.draw:
            return _structured(stream, mine, shared, seed, step, constrain)
        entry = sampling.indices(seed, stream.name, step, stream.batch, mine['count'], jnp)
        return _examples(stream, mine, shared, constrain(entry))

    def draw(mine, shared, seed, step):
        batch = {}
        for name, stream in streams.items():
            found = rows_of(stream, mine[name], shared.get(name), seed, step)
            found = jax.tree.map(constrain, found)
            if stream.augment:
                key = key_at(seed, f'augment/{name}', step)
                found['image'] = stream.augment(key, unit(found['image']))
            if not stream.labelled:
                del found['label']
            batch[name] = found
        return batch

    return draw


def unit(image: Array) -> Array:
    """uint8 images as float32 in [0, 1]; others unchanged."""
    return image.astype(jnp.float32) / 255 if image.dtype == jnp.uint8 else image


def feed(
    streams: Mapping[str, Stream],
    seeds: np.ndarray,
    start: int,
    stop: int,
    own: Mapping[str, np.ndarray] | None = None,
    **options,
) -> Iterator[dict[str, dict[str, np.ndarray]]]:
    """Batches [M, B, ...] of all fed streams for steps start..stop, decoded ahead by Grain.

    Args:
      streams: by name.
      seeds: of the members.
      start: the first step.
      stop: the step after the last.
      own: by stream, the rows of its batches that are wanted here; None: all.
      **options: for `reader.batches`.
    """
    fed = {name: stream for name, stream in streams.items() if not stream.resident}

    def rows_at(stream):
        wanted = own[stream.name] if own else slice(None)

        def rows(step):
            return np.stack(
                [
                    order[sampling.indices(seed, stream.name, step, stream.batch, count, np)]
                    for order, seed, count in zip(stream.order, seeds, stream.count, strict=True)
                ]
            )[:, wanted]

        return rows

    readers = {
        name: reader.batches(stream.source, rows_at(stream), start, stop, **options)
        for name, stream in fed.items()
    }
    for _ in range(start, stop):
        yield {name: next(batches) for name, batches in readers.items()}


def blocks(
    stream: Stream, size: int, first: int = 0, own: np.ndarray | slice = slice(None)
) -> Iterator[tuple[dict, dict]]:
    """A stream in order from block `first`, in padded blocks of `size` examples: `(mine, shared)`.

    Of each block the rows `own`.

    Their union is a batch with 'image', 'index', 'label' if labelled, and 'valid', which is False
    for padding and for what a member does not draw from. What differs between members is in
    `mine`, with the member axis in front; the rest is in `shared`, without it.
    """
    same = bool((stream.order == stream.order[0]).all() and (stream.count == stream.count[0]).all())
    order, count = (stream.order[0], stream.count[0]) if same else (stream.order, stream.count)
    total = stream.order.shape[1]
    starts = range(0, total, size)

    def rows(number):
        return order[..., np.minimum(starts[number] + np.arange(size)[own], total - 1)]

    fed = None
    if not stream.resident:
        fed = reader.batches(stream.source, rows, first, len(starts))
    for number, start in list(enumerate(starts))[first:]:
        inside, row = start + np.arange(size)[own], rows(number)
        block = {'index': row, 'valid': inside < count[..., None]}
        if stream.labelled:
            block['label'] = jax.tree.map(lambda values: values[row], stream.source.label)
        mine, shared = ({}, block) if same else (block, {})
        if stream.cached:
            mine['image'] = stream.image[:, np.minimum(inside, total - 1)]
        else:
            block['image'] = stream.image[row] if stream.resident else next(fed)['image']
        yield mine, shared


def traced_over(
    streams: Mapping[str, Stream], mine: PyTree, shared: PyTree, size: int, mesh: Mesh
) -> Callable[[str, Callable], PyTree]:
    """`Over` for one member inside a compiled program; every stream is resident.

    A block of at most `size` examples, or as many as there are devices, is split over the mesh.
    """

    def over(name: str, fn: Callable) -> PyTree:
        stream, own, common = streams[name], mine[name], shared[name]
        total = stream.order.shape[1]
        block = sharding.divisible(mesh, min(size, total))
        entries = jnp.arange(-(-total // block) * block).reshape(-1, block)

        def one(inside):
            inside = sharding.split(mesh, inside)
            batch = _examples(stream, own, common, jnp.minimum(inside, total - 1))
            if not stream.labelled:
                del batch['label']
            return fn(batch | {'valid': inside < own['count']})

        out = jax.lax.map(one, entries)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:total], out)

    return over


def ahead(launched: Iterator) -> Iterator:
    """Each of what is launched once the next one is: taken over while that is computed."""
    return (one for one, _ in itertools.pairwise(itertools.chain(launched, [None])))


def over_blocks(
    fn: Callable, stream: Stream, lift: Callable, size: int, mesh: Mesh | None = None
) -> Callable[[PyTree], PyTree]:
    """`run(mine) -> arrays [M, K, ...]`: `fn(mine, batch)` over a whole stream, block by block.

    Compiled once; the host holds two blocks at a time, one that is computed and the one before it,
    so that any stream fits.

    Args:
      fn: written for one member; returns arrays [B, ...].
      stream: with order [M, K].
      lift: lifts `fn(mine, shared)` over members.
      size: examples a block, at most; rounded up to a multiple of the mesh's devices.
      mesh: over whose devices a block is split; None: on the default one.
    """
    total = stream.order.shape[1]
    size = sharding.divisible(mesh, min(size, total)) if mesh else min(size, total)
    own = sharding.rows(mesh, size) if mesh else slice(None)
    place = partial(sharding.placed, mesh, size=size) if mesh else lambda x, axis=0: x

    def one(mine, shared):
        return fn(mine['state'], {**shared, **mine['batch']})

    compiled = jax.jit(lift(one), out_shardings=sharding.replicated(mesh) if mesh else None)

    def launched(state):
        for mine, shared in blocks(stream, size, own=own):
            yield compiled({'state': state, 'batch': place(mine, axis=1)}, place(shared))

    def run(state):
        out = [jax.device_get(found) for found in ahead(launched(state))]
        return jax.tree.map(lambda *x: np.concatenate(x, axis=1)[:, :total], *out)

    return run
