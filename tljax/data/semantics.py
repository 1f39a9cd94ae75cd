"""Class embeddings: what a class is like, in numbers, from attributes, word vectors or sentences.

`load(('awa:FOLDER', 'words:FILE'), classes)` puts the vectors of several kinds side by side. Class
names are compared without regard to case, and `+`, `_`, `-` and blanks count alike.
"""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from tljax.data import words
from tljax.data.splits import did_you_mean
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
    found = []
    for spec in specs:
        kind, _, rest = spec.partition(':')
        place, _, which = rest.partition('#')
        if kind not in KINDS or not place:
            known = ', '.join(f'{name}:...' for name in KINDS)
            raise ValueError(f"can't read class embeddings {spec!r}: expected one of {known}")
        vectors = np.asarray(KINDS[kind](Path(place).expanduser(), which, classes), np.float32)
        for name, row in zip(classes, vectors, strict=True):
            if not np.isfinite(row).all() or not row.any():
                what = 'all 0' if np.isfinite(row).all() else 'not finite'
                raise ValueError(f'{spec}: the embedding of class {name!r} is {what}')
        found.append(vectors)
    if not found:
        raise ValueError('no class embeddings are named: set data.embeddings')
    part = np.repeat(np.arange(len(found)), [one.shape[1] for one in found])
    return Embeddings(np.concatenate(found, axis=1), part.astype(np.int32))


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


def xian(folder: Path, which: str, classes: Sequence[str]) -> np.ndarray:
    """The matrix WHICH of att_splits.mat [A, C]: 'att' (the default), 'original_att' or 'wv'."""
    which = which or 'att'
    found = matlab(folder / 'att_splits.mat', (which, 'allclasses_names'))
    names, matrix = strings(found['allclasses_names']), found[which]
    if matrix.ndim != 2 or matrix.shape[1] != len(names):
        raise ValueError(
            f'{folder}/att_splits.mat: {which} is {list(matrix.shape)}; expected [A, {len(names)}]'
        )
    return of_classes(dict(zip(names, matrix.T, strict=True)), classes, str(folder))


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


def strings(cells: np.ndarray) -> list[str]:
    """A MATLAB cell array of strings as a list."""
    return [str(np.ravel(cell)[0]).strip() for cell in np.ravel(cells)]


def table(file: Path, which: str, classes: Sequence[str]) -> np.ndarray:
    """A CSV table by hand: first line 'class,ATTRIBUTE,...', then a line of numbers a class."""
    del which
    return of_classes(read_table(file), classes, str(file))


def read_table(file: Path) -> dict[str, np.ndarray]:
    """Class name -> its numbers [A], from a CSV table.

    Raises:
      ValueError: a line of another length, an entry that is no number, or a class given twice.
    """
    table = [row for row in csv.reader(lines(file)) if any(cell.strip() for cell in row)]
    header, rows = table[0] if table else [], table[1:]
    if len(header) < 2 or not rows:
        raise ValueError(
            f"{file}: expected a first line 'class,ATTRIBUTE,...' and a line for each class"
        )
    found: dict[str, np.ndarray] = {}
    for row in rows:
        name = row[0].strip()
        if len(row) != len(header):
            raise ValueError(
                f'{file}: class {name!r} has {len(row) - 1} numbers; expected {len(header) - 1}, '
                'one for each attribute'
            )
        if name in found:
            raise ValueError(f'{file}: class {name!r} is there twice')
        for attribute, cell in zip(header[1:], row[1:], strict=True):
            try:
                float(cell)
            except ValueError:
                raise ValueError(
                    f'{file}: class {name!r} has {cell!r} for {attribute.strip()!r}; expected a '
                    'number'
                ) from None
        found[name] = np.array(row[1:], np.float32)
    return found


def sentences(file: Path, which: str, classes: Sequence[str]) -> np.ndarray:
    """Descriptions 'class,TEXT' a line of a CSV file, embedded by sentence-transformers.

    WHICH is the model, a name on the Hugging Face hub or a folder; by default `SENTENCES`.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise ValueError(
            f"{file}: descriptions need the package sentence-transformers: pip install '.[text]'"
        ) from None
    described = {row[0]: row[1] for row in csv.reader(lines(file)) if len(row) > 1}
    texts = of_classes(described, classes, str(file)).tolist()
    return SentenceTransformer(which or SENTENCES).encode(texts)


def lines(file: Path) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
      ValueError: there is no such file.
    """
    if not file.is_file():
        raise ValueError(f'{file}: there is no such file')
    return [line for line in file.read_text(encoding='utf-8-sig').splitlines() if line.strip()]


KINDS: Mapping[str, Callable[[Path, str, Sequence[str]], np.ndarray]] = {
    'awa': awa,
    'csv': table,
    'text': sentences,
    'words': words.of_classes,
    'xian': xian,
}
