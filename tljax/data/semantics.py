"""Class embeddings: what a class is like, in numbers, from attributes, word vectors or sentences.

`load(('awa:FOLDER', 'words:FILE'), classes)` puts the vectors of several kinds side by side. Class
names are compared without regard to case, and `+`, `_`, `-` and blanks count alike.
"""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tljax.data import words
from tljax.data.splits import did_you_mean, read_text
from tljax.data.words import plain
from tljax.types import Embeddings

SENTENCES = 'sentence-transformers/all-MiniLM-L6-v2'


def load(specs: Sequence[str], classes: Sequence[str]) -> Embeddings:
    """The embeddings of these classes, kinds side by side in the order of `specs`.

    Args:
      specs: each 'KIND:PLACE' or 'KIND:PLACE#WHICH'; see `KINDS` for each.
      classes: names, in label order.

    Raises:
      ValueError: a file, a kind or a class that is not there, or numbers that cannot be; the
        message says where, what was found and what to do.
    """
    found, columns = [], []
    for spec in specs:
        kind, place, which = parse(spec)
        vectors = np.asarray(kind.read(place, which, classes), np.float32)
        check(vectors, classes, spec)
        names = tuple(kind.columns(place, which))
        if len(names) not in (0, vectors.shape[1]):
            raise ValueError(f'{spec}: has {len(names)} names of {vectors.shape[1]} columns')
        found.append(vectors)
        columns.append(names)
    if not found:
        raise ValueError('no class embeddings are named: set data.embeddings')
    part = np.repeat(np.arange(len(found)), [one.shape[1] for one in found])
    return Embeddings(np.concatenate(found, axis=1), part.astype(np.int32), tuple(columns))


def check(vectors: np.ndarray, classes: Sequence[str], where: str) -> None:
    """Raises ValueError for a class whose embedding is 0 or not finite."""
    for name, row in zip(classes, vectors, strict=True):
        if not np.isfinite(row).all() or not row.any():
            what = 'all 0' if np.isfinite(row).all() else 'not finite'
            raise ValueError(f'{where}: the embedding of class {name!r} is {what}')


def parse(spec: str) -> tuple['Kind', Path, str]:
    """'KIND:PLACE#WHICH' as the kind, the place and WHICH, '' by default.

    Raises:
      ValueError: there is no such kind, or no place.
    """
    kind, _, rest = spec.partition(':')
    place, _, which = rest.partition('#')
    if kind not in KINDS or not place:
        known = ', '.join(f'{name}:...' for name in KINDS)
        raise ValueError(f"can't read class embeddings {spec!r}: expected one of {known}")
    return KINDS[kind], Path(place).expanduser(), which


def of_classes(table: Mapping[str, np.ndarray], classes: Sequence[str], where: str) -> np.ndarray:
    """The rows [C, A] of a table by class name.

    Raises:
      ValueError: a class is not in the table.
    """
    known = {plain(name): row for name, row in table.items()}
    for name in classes:
        if plain(name) not in known:
            hint = did_you_mean(plain(name), known)
            raise ValueError(f'{where}: there is no class {name!r}; {hint}')
    return np.stack([known[plain(name)] for name in classes])


def awa(folder: Path, which: str, classes: Sequence[str]) -> np.ndarray:
    """Attributes of Animals with Attributes: classes.txt, and predicate-matrix-WHICH.txt [C, 85].

    WHICH is 'continuous' (the default: per cent of agreement, -1 for unknown) or 'binary'.
    """
    which = which or 'continuous'
    if which not in ('binary', 'continuous'):
        raise ValueError(f'{folder}: attributes are binary or continuous, not {which!r}')
    names = [line.split()[-1] for line in lines(folder / 'classes.txt')]
    file = folder / f'predicate-matrix-{which}.txt'
    try:
        matrix = np.array([line.split() for line in lines(file)], np.float32)
    except ValueError as error:
        raise ValueError(f'{file}: is no matrix of numbers ({error})') from None
    if matrix.ndim != 2 or len(matrix) != len(names):
        raise ValueError(
            f'{file}: has {len(matrix)} rows; expected {len(names)}, one for each of classes.txt'
        )
    return of_classes(dict(zip(names, matrix, strict=True)), classes, str(folder))


def awa_columns(folder: Path, which: str) -> tuple[str, ...]:
    """The attributes' names: those of predicates.txt."""
    del which
    return tuple(line.split(maxsplit=1)[-1] for line in lines(folder / 'predicates.txt'))


def xian(folder: Path, which: str, classes: Sequence[str]) -> np.ndarray:
    """The matrix WHICH of att_splits.mat [A, C]: 'att' (the default), 'original_att' or 'wv'."""
    which = which or 'att'
    found = matlab(folder / 'att_splits.mat', (which, 'allclasses_names'))
    names = class_names(found['allclasses_names'], f'{folder}/att_splits.mat')
    matrix = found[which]
    if matrix.ndim != 2 or matrix.shape[1] != len(names):
        raise ValueError(
            f'{folder}/att_splits.mat: {which} is {list(matrix.shape)}; expected [A, {len(names)}]'
        )
    return of_classes(dict(zip(names, matrix.T, strict=True)), classes, str(folder))


def xian_columns(folder: Path, which: str) -> tuple[str, ...]:
    """'att1', 'att2', ...: the files give no names."""
    which = which or 'att'
    count = len(matlab(folder / 'att_splits.mat', (which,))[which])
    return tuple(f'{which}{i}' for i in range(1, count + 1))


def matlab(file: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Variables of a MATLAB file of version 7 or less.

    Raises:
      ValueError: the file or a variable is not there, or cannot be read.
    """
    from scipy.io import loadmat

    if not file.is_file():
        raise ValueError(f'{file}: there is no such file; Xian et al. publish it with their splits')
    try:
        found = loadmat(file, variable_names=list(names))
    except Exception as error:  # scipy's reader raises almost anything
        raise ValueError(f"{file}: can't be read as a MATLAB file ({error})") from None
    for name in names:
        if name not in found:
            from scipy.io import whosmat

            there = [variable for variable, *_ in whosmat(file)]
            raise ValueError(f'{file}: has no variable {name}; {did_you_mean(name, there)}')
    return {name: found[name] for name in names}


def class_names(cells: np.ndarray, where: str) -> list[str]:
    """A MATLAB cell array of names as a list.

    Raises:
      ValueError: one is empty, or there twice.
    """
    names = [' '.join(map(str, np.ravel(cell))).strip() for cell in np.ravel(cells)]
    for i, name in enumerate(names):
        if not name or plain(name) in map(plain, names[:i]):
            what = f'{name!r} twice' if name else 'nothing'
            raise ValueError(f'{where}: allclasses_names holds {what} in cell {i + 1}')
    return names


def table(file: Path, which: str, classes: Sequence[str]) -> np.ndarray:
    """A CSV table by hand: first line 'class,ATTRIBUTE,...', then a line of numbers a class."""
    del which
    return of_classes(read_table(file), classes, str(file))


def read_table(file: Path) -> dict[str, np.ndarray]:
    """Class name -> its numbers [A], from a CSV table.

    Raises:
      ValueError: as `cells`, or an entry that is no number.
    """
    columns, rows = cells(file)
    if not columns:
        raise ValueError(
            f"{file}: expected a first line 'class,ATTRIBUTE,...' and a line for each class"
        )
    return {name: numbers(file, name, columns, row) for name, row in rows.items()}


def cells(file: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Names of the columns behind the first, and class name -> its cells, from a CSV table.

    Raises:
      ValueError: there is no line for a class, one of another length, or a class given twice.
    """
    table = [row for row in csv.reader(lines(file)) if any(cell.strip() for cell in row)]
    if len(table) < 2:
        raise ValueError(
            f"{file}: expected a first line 'class,ATTRIBUTE,...' and a line for each class"
        )
    columns = [cell.strip() for cell in table[0][1:]]
    found: dict[str, list[str]] = {}
    for name, *row in table[1:]:
        if len(row) != len(columns):
            raise ValueError(
                f'{file}: class {name.strip()!r} has {len(row)} numbers; expected {len(columns)}, '
                'one for each attribute'
            )
        if plain(name) in map(plain, found):
            raise ValueError(f'{file}: class {name.strip()!r} is there twice')
        found[name.strip()] = row
    return columns, found


def numbers(file: Path, name: str, columns: Sequence[str], row: Sequence[str]) -> np.ndarray:
    """The cells of a class as numbers.

    Raises:
      ValueError: one is none.
    """
    for column, cell in zip(columns, row, strict=True):
        try:
            float(cell)
        except ValueError:
            raise ValueError(
                f'{file}: class {name!r} has {cell!r} for {column!r}; expected a number'
            ) from None
    return np.array(row, np.float32)


def table_columns(file: Path, which: str) -> list[str]:
    """Those of the first line."""
    del which
    return cells(file)[0]


def sentences(file: Path, which: str, classes: Sequence[str]) -> np.ndarray:
    """Descriptions 'class,TEXT' a line of a CSV file, embedded by sentence-transformers.

    WHICH is the model, a name on the Hugging Face hub or a folder; by default `SENTENCES`.
    """
    described: dict[str, str] = {}
    for row in csv.reader(lines(file)):
        if len(row) != 2 or not row[1].strip():
            raise ValueError(
                f'{file}: {",".join(row)!r} is not class,TEXT; put a text with commas in quotes'
            )
        if plain(row[0]) in map(plain, described):
            raise ValueError(f'{file}: class {row[0].strip()!r} is there twice')
        described[row[0].strip()] = row[1].strip()
    return encode(of_classes(described, classes, str(file)).tolist(), which)


def encode(texts: Sequence[str], which: str = '') -> np.ndarray:
    """Sentences [C] as vectors [C, A] of the model WHICH.

    Raises:
      ValueError: the package is not installed.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise ValueError(
            "descriptions of classes need the package sentence-transformers: pip install '.[text]'"
        ) from None
    return SentenceTransformer(which or SENTENCES).encode(texts)


def lines(file: Path) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
      ValueError: there is no such file, or it is not UTF-8.
    """
    return [line for line in read_text(file).splitlines() if line.strip()]


def unnamed(place: Path, which: str) -> tuple[str, ...]:
    """Vectors of words and sentences: their columns have no names."""
    del place, which
    return ()


class Kind(NamedTuple):
    """A row of `KINDS`."""

    read: Callable[[Path, str, Sequence[str]], np.ndarray]  # place, WHICH, classes -> [C, A]
    columns: Callable[[Path, str], Sequence[str]] = unnamed  # place, WHICH -> names [A], or none


KINDS: Mapping[str, Kind] = {
    'awa': Kind(awa, awa_columns),
    'csv': Kind(table, table_columns),
    'text': Kind(sentences),
    'words': Kind(words.of_classes),
    'xian': Kind(xian, xian_columns),
}
