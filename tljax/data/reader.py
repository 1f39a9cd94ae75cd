"""The streaming path: batches decoded on the host by Grain, for sets too large for memory."""

import functools
import os
from collections.abc import Callable, Iterator

import grain.python as grain
import jax
import numpy as np
from absl import flags

from tljax.data.sources import Source


def batches(
    source: Source,
    rows_at: Callable[[int], np.ndarray],
    start: int,
    stop: int,
    *,
    threads: int | None = None,
    workers: int = 0,
    prefetch: int = 2,
) -> Iterator[dict[str, np.ndarray]]:
    """Decoded batches of the steps start..stop-1, in order.

    The rows come from `rows_at` alone, so the batches are the same with any number of threads and
    workers, and a run that starts later goes on exactly.

    Args:
      source: where images come from.
      rows_at: step -> rows [..., B] of the source, of one shape for all steps.
      start: the first step.
      stop: the step after the last.
      threads: decoding threads; None: two a core.
      workers: decoding processes, used instead of threads; they need `source.fetch` and `rows_at`
        to be picklable and a main module that is safe to import.
      prefetch: batches decoded ahead (by each worker).

    Yields:
      {'image': uint8 [..., B, H, W, C], 'label': int32 [..., B], 'index': int32 [..., B]}.

    Raises:
      ValueError: an image can't be decoded; the message names it.
    """
    if stop <= start:
        return
    shape = np.shape(rows_at(start))
    if workers:
        flat = _by_processes(source, rows_at, start, stop, workers, prefetch)
    else:
        threads = threads or 2 * (os.cpu_count() or 1)
        flat = _by_threads(source, rows_at, start, stop, threads, prefetch)
    for batch in flat:
        yield jax.tree.map(lambda value: value.reshape(*shape, *value.shape[1:]), batch)


def _by_threads(source, rows_at, start: int, stop: int, threads: int, prefetch: int):
    """Threads share out single images, so that memory holds few batches of many images."""
    size = np.size(rows_at(start))
    rows = functools.lru_cache(maxsize=threads + 2)(lambda step: np.ravel(rows_at(step)).tolist())

    def example(position: int) -> dict[str, np.ndarray]:
        return _example(source, rows(start + position // size)[position % size])

    examples = grain.MapDataset.range((stop - start) * size).map(example)
    ahead = max(threads, prefetch * size)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    return examples.to_iter_dataset(options).batch(size)


def _by_processes(source, rows_at, start: int, stop: int, workers: int, prefetch: int):
    """Processes take whole batches in turns."""
    if not flags.FLAGS.is_parsed():  # a notebook, a test: Grain would refuse to start workers
        flags.FLAGS.mark_as_parsed()

    def batch(step: int) -> dict[str, np.ndarray]:
        examples = [_example(source, row) for row in np.ravel(rows_at(step)).tolist()]
        return jax.tree.map(lambda *values: np.stack(values), *examples)

    steps = grain.MapDataset.range(start, stop).map(batch)
    options = grain.MultiprocessingOptions(workers, per_worker_buffer_size=prefetch)
    # One thread and nothing ahead inside a worker: the worker's own buffer is the look-ahead.
    serial = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    return steps.to_iter_dataset(serial).mp_prefetch(options)


def _example(source: Source, row: int) -> dict[str, np.ndarray]:
    return {
        'image': source.fetch(row),
        'label': jax.tree.map(lambda values: values[row], source.label),
        'index': np.int32(row),
    }
