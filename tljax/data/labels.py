"""Several label columns of one set: which are chosen, and which labels are kept."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from tljax.data.splits import did_you_mean, read_text
from tljax.types import Task

Source = TypeVar('Source')  # of tljax.data.sources, which imports this
_IMAGES = re.compile(r'(?:(\w+)_)?(?:images?|x)(?:_(\w+))?')
_TASK = re.compile(r'((?P<split>\w+?)_)?(label|y)_(?P<task>\w+)')
_SPLIT = '___'  # between the two names of a class such as 'Apple___scab'
_ABSENT = ('', 'NA', 'NaN', 'nan')  # as Excel, R and pandas write a cell that is not known
OWN = 'label'  # the task that is a set's own classes


def choose(
    source: Source,
    targets: Mapping[str, np.ndarray],
    tasks: Mapping[str, Task],
    names: Sequence[str],
    shares: Mapping[str, float],
) -> Source:
    """A source with the tasks of these names.

    Args:
      source: with its own classes alone.
      targets: task -> labels [N, ...] of the set's further columns.
      tasks: the same columns.
      names: which to take, 'label' for the classes; 'NAME=COLUMN' takes it under another name, as
        where two sets have a column of one name that means two things.
      shares: task -> share of its labels that is kept.

    Raises:
      ValueError: a task is not there, is named twice, or its share is not in (0, 1].
    """
    known = {OWN: (Task('classification', source.classes), source.labels.astype(np.int32))}
    known |= {task: (tasks[task], targets[task]) for task in tasks}
    known |= host_and_disease(source.classes, source.labels)
    columns = {name.partition('=')[0]: name.rpartition('=')[2] for name in names}
    for column in columns.values():
        if column not in known:
            raise ValueError(
                f'{source.name}: there is no task {column!r}; {did_you_mean(column, known)}'
            )
    if len(columns) < len(names):
        raise ValueError(f'{source.name}: tasks names one twice: {tuple(names)}')
    if extra := set(shares) - set(columns):
        raise ValueError(f'{source.name}: shares names {sorted(extra)}, which tasks lacks')
    found = {name: known[column] for name, column in columns.items()}
    return source._replace(
        tasks={name: task for name, (task, _) in found.items()},
        targets={name: kept(name, *one, shares.get(name, 1.0)) for name, one in found.items()},
    )


def kept(name: str, task: Task, values: np.ndarray, share: float) -> np.ndarray:
    """Labels of which all but a share, drawn by a fixed seed, are masked; at least one is kept."""
    if not 0 < share <= 1:
        raise ValueError(f'the share of task {name!r} is {share}; expected a number in (0, 1]')
    if share == 1:
        return values
    order = np.random.RandomState(0).permutation(len(values))
    values = values.copy()
    values[order[max(round(share * len(values)), 1) :]] = absent(task)
    return values


def absent(task: Task) -> float:
    """What stands for a label that is not known."""
    return np.nan if task.kind == 'regression' else -1


def host_and_disease(
    classes: Sequence[str], labels: np.ndarray
) -> dict[str, tuple[Task, np.ndarray]]:
    """The tasks 'host' and 'disease' of classes 'Apple___scab'; none if a class has another form.

    This is how PlantVillage names its 38 classes: Hughes and Salathé, 2015, arXiv:1511.08060.
    """
    pairs = [name.split(_SPLIT) for name in classes]
    if any(len(pair) != 2 for pair in pairs):
        return {}
    found = {}
    for task, column in zip(('host', 'disease'), zip(*pairs, strict=True), strict=True):
        names = tuple(sorted(set(column)))
        number = np.array([names.index(name) for name in column], np.int32)
        found[task] = Task('classification', names), number[labels]
    return found


def read_csv(file: Path) -> tuple[list[str], dict[str, Task], dict[str, np.ndarray]]:
    """The table `image,TASK,TASK,...` beside an image folder.

    A column of numbers, one or more of them with a point or exponent, is a regression, one with
    cells such as 'red|round' is multi-label, and any other, such as one of whole numbers, is a
    classification. A cell that is empty, NA or NaN is a label that is not known.

    Returns:
      the images, and by task what it is and its labels.

    Raises:
      ValueError: the file is not UTF-8, there is no column `image`, none beside it, a row has too
        few or too many cells, or a column is empty.
    """
    header, *rows = _rows(file)
    if 'image' not in header or len(header) < 2 or len(set(header)) < len(header):
        raise ValueError(
            f"{file}: its first line is {','.join(header)!r}; expected 'image' and one or more "
            "tasks, each once, such as 'image,host,disease'"
        )
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise ValueError(f'{file}: row {number} has {len(row)} cells; expected {len(header)}')
    columns = {name: [row[i].strip() for row in rows] for i, name in enumerate(header)}
    images, tasks, targets = columns.pop('image'), {}, {}
    for name, written in columns.items():
        cells = ['' if cell in _ABSENT else cell for cell in written]
        if not any(cells):
            raise ValueError(f'{file}: column {name!r} is empty; fill it or leave it out')
        tasks[name], targets[name] = column(cells)
    return images, tasks, targets


def _rows(file: Path) -> list[list[str]]:
    """The lines of a table that are not empty."""
    return [row for row in csv.reader(io.StringIO(read_text(file))) if row] or [[]]


def column(cells: Sequence[str]) -> tuple[Task, np.ndarray]:
    """What a column of cells is, and its labels; see `read_csv`."""
    filled = [cell for cell in cells if cell]
    if all(map(_is_number, filled)) and any(set(cell) & set('.eE') for cell in filled):
        values = [[float(cell) if cell else np.nan] for cell in cells]
        return Task('regression', ('value',)), np.array(values, np.float32)
    if any('|' in cell for cell in filled):
        names = tuple(sorted({name for cell in filled for name in cell.split('|') if name}))
        rows = [[name in cell.split('|') if cell else -1 for name in names] for cell in cells]
        return Task('multilabel', names), np.array(rows, np.int32)
    names = tuple(sorted(set(filled)))
    rows = [names.index(cell) if cell else -1 for cell in cells]
    return Task('classification', names), np.array(rows, np.int32)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def from_arrays(
    where: str, arrays: dict[str, np.ndarray]
) -> tuple[dict[str, Task], dict[str, dict[str, np.ndarray]]]:
    """Takes the further label arrays out of an .npz file: tasks, and split -> task -> labels.

    Raises:
      ValueError: an array has another shape or other values than its kind of task.
    """
    images = {match[1] or match[2] or '' for key in arrays if (match := _IMAGES.fullmatch(key))}
    names = {
        key.removeprefix('classes_'): arrays.pop(key) for key in [*arrays] if 'classes_' in key
    }
    found: dict[str, dict[str, np.ndarray]] = {}
    for key in [*arrays]:
        match = _TASK.fullmatch(key)
        if match and match['task'] not in images:
            found.setdefault(match['task'], {})[match['split'] or ''] = arrays.pop(key)
    tasks = {name: _task(f'{where} {name}', list(v.values()), names) for name, v in found.items()}
    splits: dict[str, dict[str, np.ndarray]] = {}
    for name, values in found.items():
        for split, array in values.items():
            array = array.astype(np.float32 if tasks[name].kind == 'regression' else np.int32)
            flat = tasks[name].kind == 'regression' and array.ndim == 1
            splits.setdefault(split, {})[name] = array[:, None] if flat else array
    return tasks, splits


def _task(where: str, values: Sequence[np.ndarray], names: Mapping[str, np.ndarray]) -> Task:
    """What a task's arrays, one a split, are."""
    first, name = values[0], where.split()[-1]
    if any(one.dtype.kind not in 'iuf' or one.ndim not in (1, 2) for one in values) or (
        len({(one.dtype.kind, one.shape[1:]) for one in values}) > 1
    ):
        found = ', '.join(f'{one.dtype} {list(one.shape)}' for one in values)
        raise ValueError(f'{where}: labels are {found}; expected numbers [N] or [N, C], all alike')
    kind = (
        'regression'
        if first.dtype.kind == 'f'
        else ('classification', 'multilabel')[first.ndim - 1]
    )
    top = max(int(one.max()) for one in values) if kind != 'regression' else 0
    count = top + 1 if kind == 'classification' else (*first.shape, 1)[1]
    classes = tuple(map(str, names.get(name, range(count))))
    low = min(int(one.min()) for one in values) if kind != 'regression' else 0
    if low < -1 or count > len(classes) or (kind == 'multilabel' and top > 1):
        raise ValueError(
            f'{where}: labels are in [{low}, {top}]; expected -1 for an absent one, else '
            + ('0 or 1' if kind == 'multilabel' else f'0 to {len(classes) - 1}')
        )
    return Task(kind, classes)


def digit_tasks(labels: np.ndarray, images: np.ndarray) -> tuple[dict, dict]:
    """Related tasks of images of digits.

    'parity' and 'above_four' are arithmetic, 'loops' is shape: how many closed curves the digit has
    (one in 0, 4, 6 and 9, two in 8), and 'ink', a regression, is the mean grey value, in
    standard deviations from that of all images.

    Args:
      labels: [N] int in [0, 10).
      images: [N, H, W] grey values.
    """
    loops = np.array([1, 0, 0, 0, 1, 0, 1, 0, 2, 1])
    columns = {
        'parity': (('even', 'odd'), labels % 2),
        'above_four': (('no', 'yes'), labels > 4),
        'loops': (('none', 'one', 'two'), loops[labels]),
    }
    tasks = {name: Task('classification', classes) for name, (classes, _) in columns.items()}
    targets = {name: values.astype(np.int32) for name, (_, values) in columns.items()}
    tasks['ink'] = Task('regression', ('grey value',), (0.0,), (1.0,))
    ink = images.mean((1, 2))[:, None]
    targets['ink'] = ((ink - ink.mean()) / ink.std()).astype(np.float32)
    return tasks, targets
