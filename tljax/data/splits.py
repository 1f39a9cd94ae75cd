"""Named splits of a data set, and the expressions that cut and add them.

Every kind of source understands the split syntax of TFDS with its rounding: `train[:10%]`,
`train[100:-50]`, `train[:100]+test`, and `all` for every split one after the other.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tljax.types import Task

_TERM = re.compile(r'(?P<name>[\w.-]+?)(\[(?P<cut>[^\[\]]*)\])?')
_EDGE = re.compile(r'(?P<value>-?\d+(\.\d+)?)?(?P<percent>%)?')
_ALIASES = {
    'training': 'train',
    'valid': 'val',
    'validation': 'val',
    'dev': 'val',
    'testing': 'test',
}


class Part(NamedTuple):
    """Some rows of one split, ready to read."""

    labels: np.ndarray  # [n] int32
    fetch: Callable[[int], np.ndarray]  # position in this part -> image or feature vector
    keys: Sequence[str] | None = None  # what names each row for people
    targets: Mapping[str, np.ndarray] = {}  # task -> labels [n, ...]; see tljax.types.Task


class Dataset(NamedTuple):
    """A data set whose splits are known by size, and read only when asked for."""

    classes: tuple[str, ...]
    sizes: Mapping[str, int]  # split -> number of rows
    read: Callable[[str, np.ndarray], Part]  # split, rows int [n] -> those rows
    tasks: Mapping[str, Task] = {}  # what there is to learn beside the classes


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """A hint for error messages: the near misses, or else what there is."""
    options = [str(option) for option in options]
    near = difflib.get_close_matches(str(name), options, n=3, cutoff=0.6)
    if near:
        return 'did you mean ' + ' or '.join(repr(option) for option in near) + '?'
    shown = ', '.join(options[:20]) + (', ...' if len(options) > 20 else '')
    return f'there is: {shown}'


def canonical(name: str) -> str:
    """'Validation' -> 'val', 'training' -> 'train'; other names only in lower case."""
    return _ALIASES.get(name.lower(), name.lower())


def parse(split: str, sizes: Mapping[str, int]) -> list[tuple[str, np.ndarray]]:
    """The rows that a split expression selects.

    Args:
      split: for example 'train[:10%]+val'. Bounds are rows or percentages, counted from the end if
        negative; percentages are rounded to the nearest row, as in TFDS. 'val' and 'validation'
        name the same split.
      sizes: number of rows of each split.

    Returns:
      Pairs of a split's name and its rows, int64 [n].

    Raises:
      ValueError: the expression can't be read, names no split, cuts outside of it or is empty.
    """
    parts = []
    for text in split.split('+'):
        term = _TERM.fullmatch(text.strip())
        if not term:
            raise ValueError(f"can't read split {split!r}: expected e.g. 'train[:10%]+train[500:]'")
        for name in _names(term['name'], sizes):
            first, stop = _bounds(term['cut'], sizes[name], text.strip())
            parts.append((name, np.arange(first, stop)))
    if not sum(len(rows) for _, rows in parts):
        raise ValueError(f'split {split!r} selects no rows of {dict(sizes)}')
    return parts


def _names(name: str, sizes: Mapping[str, int]) -> list[str]:
    if name in sizes:
        return [name]
    if name == 'all':
        return list(sizes)
    same = [other for other in sizes if canonical(other) == canonical(name)]
    if not same:
        known = ', '.join(f'{other} ({size} rows)' for other, size in sizes.items())
        only, *others = sizes
        cut = '' if others else f"; cut it, as in '{only}[:80%]' and '{only}[80%:]'"
        raise ValueError(f'there is no split {name!r}; there are: {known}, and all{cut}')
    return same[:1]


def _bounds(cut: str | None, size: int, text: str) -> tuple[int, int]:
    """First row and the one after the last of a cut such as '10%:', ':100' or '-5:'."""
    if cut is None:
        return 0, size
    edges = [_EDGE.fullmatch(edge.strip()) for edge in cut.split(':')]
    if len(edges) != 2 or not all(edges) or not any(edge['value'] for edge in edges):
        raise ValueError(f"can't read split {text!r}: expected [from:to] in rows or in percent")
    if len({edge['percent'] for edge in edges if edge['value']}) > 1:
        raise ValueError(f'split {text!r} mixes rows and percentages: use one of them')
    rows = []
    for edge, default in zip(edges, (0, size), strict=True):
        row = default if edge['value'] is None else float(edge['value'])
        if edge['percent'] and edge['value'] is not None:
            row = round(row * size / 100)
        if row != int(row):
            raise ValueError(f'split {text!r}: {edge.group()} is not a whole number of rows')
        if abs(row) > size:
            raise ValueError(f'split {text!r} reaches outside of its {size} rows')
        rows.append(int(row) + size if row < 0 else int(row))
    return rows[0], max(rows)


def stratified(labels: np.ndarray, share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Splits rows in two so that `share` of every class goes to the second part.

    Args:
      labels: [N] int.
      share: of the rows of each class, rounded to the nearest row; a class of two or more rows
        keeps at least one row on either side.
      seed: of NumPy's frozen legacy generator, so that a split is the same with any version.

    Returns:
      Rows of the first and of the second part, each ascending.
    """
    random = np.random.RandomState(seed)
    second = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        count = min(max(round(share * len(rows)), 1), len(rows) - 1)
        second[rows[:count]] = True
    return np.flatnonzero(~second), np.flatnonzero(second)


def read_text(file: Path) -> str:
    """A text file as it is, with or without the mark that Excel begins with.

    Raises:
      ValueError: there is no such file, or it is not UTF-8.
    """
    if not file.is_file():
        raise ValueError(f'{file}: there is no such file')
    try:
        return file.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise ValueError(
            f'{file}: is not UTF-8 ({error.reason}); save it as UTF-8, in Excel as "CSV UTF-8"'
        ) from error
