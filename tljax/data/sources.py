"""Labelled images by name: `load('tfds:mnist', 'train[:10%]')` and its kin, all of one form."""

import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from tljax.data import decode, folder, inmemory, labels, tfds, zero_shot
from tljax.data.splits import Dataset, Part, did_you_mean, parse
from tljax.types import Task

OPEN = {
    'tfds': tfds.open_tfds,
    'folder': folder.open_folder,
    'images': folder.open_images,
    'npz': inmemory.open_npz,
    'sklearn': inmemory.open_sklearn,
    'awa': zero_shot.open_awa,
    'xian': zero_shot.open_xian,
}


_QUICK_SECONDS = 3e-4  # decoding one image; below, Python's lock is held most of the time


class Source(NamedTuple):
    """Labelled images that are read one by one, in any order and from any thread or process."""

    name: str  # the spec and split it came from, for messages and reports
    classes: tuple[str, ...]  # class names in label order
    labels: np.ndarray  # [N] int32 in [0, len(classes))
    # row -> uint8 [H, W, C] of the asked size and channels, or a feature vector float32 [D]
    fetch: Callable[[int], np.ndarray]
    image: tuple[int, ...]  # that shape
    keys: Sequence[str] | None = None  # what names a row for people (file paths)
    dtype: np.dtype = np.dtype(np.uint8)  # of what is fetched
    tasks: Mapping[str, Task] = {}  # what is learnt of each image, where that is several things
    targets: Mapping[str, np.ndarray] = {}  # task -> labels [N, ...]

    @property
    def label(self) -> np.ndarray | Mapping[str, np.ndarray]:
        """What a batch holds as 'label': class numbers, or those of every task."""
        return dict(self.targets) if self.tasks else self.labels.astype(np.int32, copy=False)


def load(
    spec: str,
    split: str = 'train',
    *,
    size: int | None = None,
    channels: int | None = None,
    fit: str = 'crop',
    classes: Sequence[int | str] | None = None,
    only: Sequence[int | str] | None = None,
    data_dir: str | None = None,
    tasks: Sequence[str] = (),
    shares: Mapping[str, float] = {},
) -> Source:
    """Opens a set of labelled images. Labels are read, images are not, but for the first.

    Args:
      spec: 'tfds:NAME', 'folder:PATH', 'images:PATH', 'npz:PATH', 'sklearn:digits', or of features
        'awa:PATH' or 'xian:PATH'; see `OPEN` for each.
      split: a split, or an expression such as 'train[:10%]+val[100:]' or 'all'; see `splits.parse`.
      size: side of the square images are resized to; None: as they are, if all have one size.
      channels: 1 (grey) or 3 (RGB); None: what the set has (RGB for folders).
      fit: 'crop' (centre), 'crop:0.875' or 'squash'; see `decode.Pixels`.
      classes: names or numbers of the classes to keep, relabelled 0, 1, ... in this order.
      only: names or numbers of the classes to keep examples of; labels and class names stay.
      data_dir: where prepared TFDS sets lie, several folders joined by ':'; None: TFDS's own.
      tasks: names of label columns, if several are to be learnt; 'label' is the set's own classes,
        and class names such as 'Apple___scab' also make the tasks 'host' and 'disease'.
      shares: task -> the share of its labels that is kept, the same rows in every run.

    Raises:
      ValueError: the set, split or class is not there, or an image or a label is not as it should
        be. The message says where, what was found and what to do.
    """
    dataset = _open(spec, decode.Pixels(size, channels, fit), data_dir)
    if len(dataset.classes) < 2 and dataset.tasks and not tasks:
        raise ValueError(
            f'{spec}: has no classes, but the tasks {", ".join(dataset.tasks)}: name some as tasks='
        )
    part = _join([dataset.read(*cut) for cut in parse(split, dataset.sizes)])
    name = f'{spec} ({split})'
    names = dataset.classes
    if classes is not None:
        part, names = _select(part, names, classes, name)
    if only is not None:
        part = take(part, np.flatnonzero(np.isin(part.labels, _numbers(names, only, name))))
        if not len(part.labels):
            raise ValueError(f'{name}: has no examples of the classes {only!r}')
    first = part.fetch(0)
    fetch = functools.partial(_same, part.fetch, first.shape, part.keys or name)
    source = Source(name, names, part.labels, fetch, first.shape, part.keys, first.dtype)
    return labels.choose(source, part.targets, dataset.tasks, tasks, shares) if tasks else source


def class_names(spec: str, data_dir: str | None = None) -> tuple[str, ...]:
    """The names of a set's classes in label order; see `load`."""
    return _open(spec, decode.Pixels(), data_dir).classes


def test_split(spec: str) -> str:
    """What a set is tested on: 'test', or 'val' of a folder that has that one only."""
    kind, _, path = spec.partition(':')
    splits = folder.splits(path) if kind == 'folder' else ()
    return 'val' if 'val' in splits and 'test' not in splits else 'test'


def _open(spec: str, pixels: decode.Pixels, data_dir: str | None) -> Dataset:
    decode.check(pixels)
    kind, _, rest = spec.partition(':')
    if kind not in OPEN or not rest:
        specs = ', '.join(f'{name}:...' for name in OPEN)
        raise ValueError(f"can't read data set {spec!r}: expected one of {specs}")
    where = {'data_dir': data_dir} if kind == 'tfds' else {}
    return OPEN[kind](rest, pixels, **where)


def arrays(
    source: Source, workers: int | None = None, progress: Callable[[int, int], None] | None = None
) -> np.ndarray:
    """The whole set decoded in memory: uint8 [N, H, W, C], or feature vectors float32 [N, D].

    Args:
      source: the set.
      workers: decoding threads; None: one a core, or one for images so small that threads would
        only get into each other's way.
      progress: called with the number of images done and their total, about a hundred times.
    """
    total = len(source.labels)
    images = np.empty((total, *source.image), source.dtype)
    starts = list(range(0, total, max(1, total // 100)))

    def fill(start: int, stop: int) -> int:
        for row in range(start, stop):
            images[row] = source.fetch(row)
        return stop

    began = time.perf_counter()
    fill(0, min(16, total))
    if workers is None:
        quick = time.perf_counter() - began < 16 * _QUICK_SECONDS
        workers = 1 if quick else os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        try:
            for done in pool.map(fill, starts, [*starts[1:], total]):
                if progress is not None:
                    progress(done, total)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # a bad file is told at once, not after all others
            raise
    return images


def sampled(source: Source, most: int, seed: int = 0) -> Source:
    """At most so many rows, drawn by a seed without replacement and in the order of the set."""
    count = len(source.labels)
    if count <= most:
        return source
    rows = np.random.RandomState(seed).permutation(count)[:most]
    return take(source, np.sort(rows))._replace(name=f'{source.name[:-1]}, {most} sampled)')


def take(of: Source | Part, rows: np.ndarray) -> Source | Part:
    """Some rows of a source, or of a part of a data set, in that order."""
    fetch = functools.partial(_fetch_joined, [of.fetch], np.zeros_like(rows), rows)
    keys = None if of.keys is None else [of.keys[row] for row in rows]
    targets = {task: values[rows] for task, values in of.targets.items()}
    return of._replace(labels=of.labels[rows], fetch=fetch, keys=keys, targets=targets)


def present(source: Source) -> Source:
    """The source with the classes only that it has examples of, in their order."""
    kept, labels = np.unique(source.labels, return_inverse=True)
    classes = tuple(source.classes[label] for label in kept)
    return source._replace(classes=classes, labels=labels.astype(np.int32))


def _join(parts: Sequence[Part]) -> Part:
    """Parts one after the other."""
    if len(parts) == 1:
        return parts[0]
    owner = np.repeat(np.arange(len(parts)), [len(part.labels) for part in parts])
    local = np.concatenate([np.arange(len(part.labels)) for part in parts])
    fetch = functools.partial(_fetch_joined, [part.fetch for part in parts], owner, local)
    keys = None if parts[0].keys is None else [key for part in parts for key in part.keys]
    targets = {
        task: np.concatenate([part.targets[task] for part in parts]) for task in parts[0].targets
    }
    return Part(np.concatenate([part.labels for part in parts]), fetch, keys, targets)


def _fetch_joined(fetches: Sequence[Callable], owner: np.ndarray, local: np.ndarray, row: int):
    return fetches[owner[row]](int(local[row]))


def _select(
    part: Part, names: tuple[str, ...], classes: Sequence[int | str], where: str
) -> tuple[Part, tuple[str, ...]]:
    """The rows of some classes, relabelled in their order."""
    chosen = _numbers(names, classes, where)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f'{where}: classes must name one or more classes, each once: {classes!r}')
    relabel = np.full(len(names), -1, np.int32)
    relabel[chosen] = np.arange(len(chosen))
    rows = np.flatnonzero(relabel[part.labels] >= 0)
    if not rows.size:
        raise ValueError(f'{where}: has no examples of the classes {classes!r}')
    part = take(part, rows)
    return part._replace(labels=relabel[part.labels]), tuple(names[c] for c in chosen)


def _numbers(names: tuple[str, ...], classes: Sequence[int | str], where: str) -> list[int]:
    """The labels of some classes."""
    chosen = []
    for item in classes:
        if isinstance(item, str) and item not in names:
            raise ValueError(f'{where}: there is no class {item!r}; {did_you_mean(item, names)}')
        if not isinstance(item, str) and str(item) in names and names.index(str(item)) != item:
            raise ValueError(
                f'{where}: class {item} is ambiguous, for the class named {str(item)!r} has the '
                f'number {names.index(str(item))}; write names as strings, such as '
                f'{tuple(map(str, classes))}'
            )
        if not isinstance(item, str) and not 0 <= item < len(names):
            raise ValueError(f'{where}: there is no class {item}; they are 0..{len(names) - 1}')
        chosen.append(names.index(item) if isinstance(item, str) else int(item))
    return chosen


def _same(fetch: Callable, image: tuple[int, ...], keys: Sequence[str] | str, row: int):
    """Fetches a row and holds it to the shape of the first."""
    row = int(row)
    found = fetch(row)
    if found.shape != image:
        key = f'{keys}, row {row}' if isinstance(keys, str) else keys[row]
        raise ValueError(
            f'{key}: is {found.shape[1]}x{found.shape[0]}, but the first image is '
            f'{image[1]}x{image[0]}; give a size, to which all are resized'
        )
    return found
