"""Image folders: `folder/class/*.jpg`, with or without `train|val|test` folders above."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tljax.data import decode
from tljax.data.labels import read_csv
from tljax.data.splits import Dataset, Part, canonical, stratified

LABELS = 'labels.csv'
UNLABELLED = 'image'  # the one class of images that have none
_SPLITS = ('train', 'val', 'test')


def open_folder(path: str, pixels: decode.Pixels) -> Dataset:
    """Opens an image folder.

    Each class is a sub-folder, searched through; classes are ordered by name. If there are split
    folders (train, training, val, valid, validation, dev, test, testing) above the classes, they
    are the splits; else every class is divided by a fixed seed, 80 % 'train' and 20 % 'test'. Rows
    are in a fixed shuffled order, so that `train[:10%]` is a fair sample and not the first class.
    Hidden files and files that no image format claims by their ending are passed over.

    A table `labels.csv` in the folder names further tasks of its images, which may then lie
    anywhere below: see `labels.read_csv`. The classes are the first of its columns that is a
    classification without an empty cell. If all its images lie in two or three split folders,
    these are the splits; else 80 % are 'train' and 20 % 'test'.

    Raises:
      ValueError: the folder is missing, has no class sub-folders, fewer than two classes, or a
        class without images; a split has a class that the first split has not; the name of an
        image or its folder is not UTF-8.
    """
    pixels = pixels._replace(channels=pixels.channels or 3)  # files of one set often differ
    root = Path(path).expanduser()
    if not root.is_dir():
        raise ValueError(
            f'{root}: there is no such folder; expected one with a sub-folder of images per class'
        )
    if (root / LABELS).is_file():
        return _tabled(root, pixels)
    tops = _split_folders(root)
    if not tops:
        return _pooled(root, pixels)
    trees = {name: _scan(top) for name, top in tops.items()}
    first, classes = next((name, tuple(tree)) for name, tree in trees.items())
    _at_least_two(classes, tops[first])
    for name, tree in trees.items():
        if extra := sorted(set(tree) - set(classes)):
            raise ValueError(
                f'{tops[name] / extra[0]}: class {extra[0]!r} is not in {tops[first]}, whose '
                f'classes are {", ".join(classes[:20])}'
            )
    tables = {name: table(tree, classes) for name, tree in trees.items()}
    sizes = {name: len(files) for name, (files, _) in tables.items()}
    return Dataset(classes, sizes, functools.partial(_read, tables, pixels))


def open_images(path: str, pixels: decode.Pixels) -> Dataset:
    """Opens all images anywhere below a folder, without classes: for streams without labels.

    They are one split, 'train', in a fixed shuffled order.

    Raises:
      ValueError: the folder is missing or has no images, or a name is not UTF-8.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise ValueError(f'{root}: there is no such folder; expected one of images')
    if not (files := images_below(root)):
        raise ValueError(f'{root}: there is no image file below it')
    tables = {'train': table({UNLABELLED: files}, (UNLABELLED,))}
    pixels = pixels._replace(channels=pixels.channels or 3)
    return Dataset((UNLABELLED,), {'train': len(files)}, functools.partial(_read, tables, pixels))


def _pooled(root: Path, pixels: decode.Pixels) -> Dataset:
    tree = _scan(root)
    classes = tuple(tree)
    _at_least_two(classes, root)
    files, labels = table(tree, classes)
    train, test = stratified(labels, 0.2)
    tables = {
        'train': ([files[row] for row in train], labels[train]),
        'test': ([files[row] for row in test], labels[test]),
    }
    sizes = {'train': len(train), 'test': len(test)}
    return Dataset(classes, sizes, functools.partial(_read, tables, pixels))


def _tabled(root: Path, pixels: decode.Pixels) -> Dataset:
    """The images of a folder's `labels.csv`."""
    file = root / LABELS
    names, tasks, targets = read_csv(file)
    paths = [str(root / name) for name in names]
    for number, path in enumerate(paths, 2):
        if not os.path.isfile(path):
            raise ValueError(f'{file}: row {number} names {path}, which is not there')
    whole = (t for t, task in tasks.items() if task.kind == 'classification' and task.classes[1:])
    own = next((t for t in whole if (targets[t] >= 0).all()), None)
    classes = tasks[own].classes if own else (UNLABELLED,)
    labels = targets[own] if own else np.zeros(len(paths), np.int32)
    tables = {
        split: (
            [paths[row] for row in rows],
            labels[rows],
            {t: v[rows] for t, v in targets.items()},
        )
        for split, rows in _divided(names, labels).items()
    }
    sizes = {split: len(files) for split, (files, *_) in tables.items()}
    return Dataset(classes, sizes, functools.partial(_read, tables, pixels), tasks)


def _divided(names: Sequence[str], labels: np.ndarray) -> dict[str, np.ndarray]:
    """The rows of each split of a table."""
    order = np.random.RandomState(0).permutation(len(names))
    if listed := _listed_splits(names):
        split_of = np.array([_top(name) for name in names])[order]
        return {split: order[split_of == split] for split in listed}
    train, test = stratified(labels[order], 0.2)
    return {'train': order[train], 'test': order[test]}


def _listed_splits(names: Sequence[str]) -> tuple[str, ...]:
    """The splits that a table's paths tell; none if one is in no split folder, or all in one."""
    tops = {_top(name) for name in names}
    return tuple(s for s in _SPLITS if s in tops) if len(tops) > 1 and tops <= {*_SPLITS} else ()


def _top(name: str) -> str:
    """The split whose folder a path begins with, if it does."""
    top, *rest = Path(name).parts or ('',)
    return canonical(top) if rest else ''


def splits(path: str) -> tuple[str, ...]:
    """The splits that `open_folder` finds; none where it finds a fault, which is told there."""
    root = Path(path).expanduser()
    try:
        if (root / LABELS).is_file():
            found = _listed_splits(read_csv(root / LABELS)[0])
        else:
            found = tuple(_split_folders(root))
    except (ValueError, OSError):
        return ()
    return found or ('train', 'test')


def _read(tables: dict, pixels: decode.Pixels, split: str, rows: np.ndarray) -> Part:
    files, labels, *further = tables[split]
    keys = [files[row] for row in rows]
    targets = {task: values[rows] for one in further for task, values in one.items()}
    return Part(labels[rows], functools.partial(_fetch, keys, pixels), keys, targets)


def _fetch(files: list[str], pixels: decode.Pixels, row: int) -> np.ndarray:
    return decode.from_file(files[row], pixels)


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith(('.', '__')))


def _split_folders(root: Path) -> dict[str, Path]:
    """The folders that are splits; none if one holds images itself, for 'train' may be a class."""
    tops = {}
    for top in _folders(root):
        name = canonical(top.name)
        if name not in _SPLITS:
            continue
        if name in tops:
            raise ValueError(f'{top} and {tops[name]} are both the split {name!r}: remove one')
        if not _folders(top) and any(is_image(file.name) for file in top.iterdir()):
            return {}
        tops[name] = top
    return {name: tops[name] for name in _SPLITS if name in tops}


@functools.cache
def _endings() -> frozenset[str]:
    known = Image.registered_extensions()
    return frozenset(ending for ending, kind in known.items() if kind in Image.OPEN)


def is_image(name: str) -> bool:
    return not name.startswith('.') and os.path.splitext(name)[1].lower() in _endings()


def images_below(folder: Path) -> list[str]:
    """The image files anywhere in a folder but hidden ones, in the order of their names.

    Links are followed, but to no folder twice, nor to one that the folder lies in.

    Raises:
      ValueError: the name of an image, or of a folder above it, is not UTF-8.
    """
    files, seen = [], {*Path(os.path.realpath(folder)).parents}
    for parent, inner, names in os.walk(folder, followlinks=True):
        real = Path(os.path.realpath(parent))
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        inner[:] = sorted(name for name in inner if not name.startswith('.'))
        files += [os.path.join(parent, name) for name in sorted(names) if is_image(name)]
    for file in files:
        _check_name(file)
    return files


def _check_name(file: str) -> None:
    try:
        file.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f'{os.fsencode(file)!r}: this name is not UTF-8, in which reports and tables are '
            'written; rename it'
        ) from None


def _scan(top: Path) -> dict[str, list[str]]:
    """The image files of each class, both in the order of their names."""
    tree = {}
    for folder in _folders(top):
        files = images_below(folder)
        if not files:
            raise ValueError(
                f'{folder}: holds no image files; fill the class folder or remove it (endings that '
                'count are .jpg, .png and all others that Pillow reads)'
            )
        tree[folder.name] = files
    if not tree:
        loose = sum(is_image(file.name) for file in top.iterdir())
        raise ValueError(
            f'{top}: has no class sub-folders ({loose} image files lie in it directly); expected '
            f'one sub-folder of images per class, such as {top}/cat and {top}/dog; images without '
            f'labels are images:{top}'
        )
    return tree


def _at_least_two(classes: tuple[str, ...], top: Path) -> None:
    if len(classes) < 2:
        raise ValueError(
            f'{top}: has the one class {classes[0]!r}; expected a sub-folder of images for each of '
            'two or more classes'
        )


def table(tree: dict[str, list[str]], classes: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """Files and labels [N] int32, shuffled by a fixed seed."""
    number = {name: label for label, name in enumerate(classes)}
    rows = [(file, number[name]) for name, files in tree.items() for file in files]
    order = np.random.RandomState(0).permutation(len(rows))
    labels = np.array([rows[i][1] for i in order], np.int32)
    return [rows[i][0] for i in order], labels
