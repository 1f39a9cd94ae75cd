"""Classes added to a trained zero-shot run: what they are like, as a CSV table by hand.

The first line is 'class' and, in any order, the attributes that the run was trained on; then comes
a line a class. Word vectors are found by the classes' names in the file of the run, and sentences
stand in a column 'text'. A run that was trained on word vectors alone needs only the names.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tljax.data import semantics
from tljax.data.splits import did_you_mean
from tljax.data.words import plain
from tljax.types import Embeddings

TEXT = 'text'


def load(
    file: Path, specs: Sequence[str], trained: Embeddings, known: Sequence[str] = ()
) -> tuple[tuple[str, ...], np.ndarray]:
    """Names and embeddings [C, A] of the classes of a table.

    Args:
      file: the table.
      specs: data.embeddings of the run.
      trained: the run's own embeddings.
      known: classes that may not be there again.

    Raises:
      ValueError: a column that is missing or that the run knows nothing of, a class given twice or
        known already, or numbers or words that cannot be.
    """
    columns, rows = semantics.cells(file)
    _check(file, columns, _wanted(specs, trained))
    own = {plain(name): name for name in known}
    for name in rows:
        if plain(name) in own:
            raise ValueError(f'{file}: the run has a class {own[plain(name)]!r} already')
    table = {name: dict(zip(columns, row, strict=True)) for name, row in rows.items()}
    found = []
    for number, (spec, names) in enumerate(zip(specs, trained.columns, strict=True)):
        vectors = _vectors(file, spec, names, table)
        width = int((np.asarray(trained.part) == number).sum())
        if vectors.shape[1] != width:
            raise ValueError(
                f'{spec}: its vectors have {vectors.shape[1]} numbers, but the run was trained on '
                f'{width}; restore the file that it was trained with'
            )
        found.append(vectors)
    vectors = np.concatenate(found, axis=1)
    semantics.check(vectors, tuple(table), str(file))
    return tuple(table), vectors


def _wanted(specs: Sequence[str], trained: Embeddings) -> list[str]:
    """The columns that a table needs."""
    named = [name for names in trained.columns for name in names]
    if twice := {name for name in named if named.count(name) > 1}:
        raise ValueError(
            f'the run was trained on several attributes {sorted(twice)[0]!r}: no table can tell '
            'them apart, so no class can be added'
        )
    return named + [TEXT] * any(spec.startswith('text:') for spec in specs)


def _check(file: Path, columns: Sequence[str], wanted: Sequence[str]) -> None:
    for name in wanted:
        if name not in columns:
            hint = did_you_mean(name, set(columns) - set(wanted))
            raise ValueError(
                f'{file}: has no column {name!r}, which the run was trained on; {hint}'
            )
    for name in columns:
        if name not in wanted:
            hint = did_you_mean(name, wanted)
            raise ValueError(f'{file}: the run was not trained on column {name!r}; {hint}')
        if columns.count(name) > 1:
            raise ValueError(f'{file}: column {name!r} is there twice')


def _vectors(
    file: Path, spec: str, names: Sequence[str], table: Mapping[str, Mapping[str, str]]
) -> np.ndarray:
    """The vectors [C, A] of one kind."""
    if names:
        rows = {name: [cells[column] for column in names] for name, cells in table.items()}
        return np.stack([semantics.numbers(file, name, names, row) for name, row in rows.items()])
    if spec.startswith('text:'):
        _, _, model = semantics.parse(spec)
        return np.asarray(semantics.encode([cells[TEXT] for cells in table.values()], model))
    return semantics.load((spec,), tuple(table)).vectors
