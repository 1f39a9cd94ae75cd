"""Zero-shot benchmarks that come as feature vectors: Animals with Attributes, Xian et al.

Labels are those of all classes, seen or not, in every split:

    trainval, train, val     of seen classes: for learning; train and val share no class
    test_seen, test_unseen   for testing: other examples of seen classes, and classes never seen
    val_train, val_seen, val_unseen
        the same three for validation: a fifth of every class of train, drawn by a fixed seed, is
        val_seen and the rest val_train; val_unseen is val
"""

import functools
from pathlib import Path

import numpy as np

from tljax.data import decode
from tljax.data.inmemory import load_arrays
from tljax.data.semantics import class_names, lines, matlab, plain
from tljax.data.splits import Dataset, Part, did_you_mean, stratified

XIAN_SPLITS = {
    'trainval': 'trainval_loc',
    'test_seen': 'test_seen_loc',
    'test_unseen': 'test_unseen_loc',
    'train': 'train_loc',
    'val': 'val_loc',
}


def open_xian(place: str, pixels: decode.Pixels) -> Dataset:
    """Opens a folder of Xian et al.'s benchmarks (AwA1, AwA2, CUB, SUN, aPY ...).

    "Zero-shot learning - a comprehensive evaluation of the good, the bad and the ugly", 2018,
    arXiv:1707.00600. The folder holds res101.mat with `features` [D, N] and `labels` [N, 1], and
    att_splits.mat with `allclasses_names` and the proposed splits; all numbers are from 1.

    Raises:
      ValueError: a file or a variable is not there, or numbers do not fit together.
    """
    del pixels
    folder = Path(place).expanduser()
    about = matlab(folder / 'att_splits.mat', ('allclasses_names', *XIAN_SPLITS.values()))
    found = matlab(folder / 'res101.mat', ('features', 'labels'))
    file = f'{folder}/att_splits.mat'
    names = tuple(map(plain, class_names(about['allclasses_names'], file)))
    vectors = np.ascontiguousarray(found['features'].T, np.float32)
    labels = _from_one(found['labels'], len(names), f'{folder}/res101.mat: labels', 'classes')
    if len(labels) != len(vectors):
        raise ValueError(f'{folder}/res101.mat: {len(labels)} labels of {len(vectors)} features')
    splits = {}
    for split, variable in XIAN_SPLITS.items():
        where = f'{file}: {variable}'
        rows = _from_one(about[variable], len(vectors), where, 'features of res101.mat')
        splits[split] = rows
    for one, other in (('trainval', 'test_unseen'), ('train', 'val')):
        if both := {*labels[splits[one]]} & {*labels[splits[other]]}:
            raise ValueError(
                f'{file}: {XIAN_SPLITS[one]} and {XIAN_SPLITS[other]} both hold examples of '
                f'{names[min(both)]!r}; no class may be in both'
            )
    return vectors_of(str(folder), names, vectors, labels, with_validation(splits, labels))


def _from_one(numbers: np.ndarray, top: int, where: str, what: str) -> np.ndarray:
    """MATLAB's numbers 1..top as int32 [N] from 0."""
    numbers = np.ravel(numbers).astype(np.int64)
    bad = numbers[(numbers < 1) | (numbers > top)]
    if bad.size:
        raise ValueError(f'{where} holds {bad[0]}; expected 1..{top}, the number of {what}')
    return (numbers - 1).astype(np.int32)


def open_awa(place: str, pixels: decode.Pixels) -> Dataset:
    """Opens Animals with Attributes 1: FOLDER, or FOLDER#surf+phog for some of its features.

    The folder holds classes.txt, trainclasses.txt, testclasses.txt and one .npz file with labels
    `y` [N], rows of classes.txt from 0, and features [N, D], each under its name. They are
    histograms: every one is divided by its sum, and several are put side by side. A fifth of every
    training class, drawn by a fixed seed, is 'test_seen', and the first three quarters of the
    training classes in trainclasses.txt are 'train', the others 'val'.

    Raises:
      ValueError: a file or an array is not there or not like that.
    """
    del pixels
    path, _, which = place.partition('#')
    folder = Path(path).expanduser()
    names = tuple(plain(line.split()[-1]) for line in lines(folder / 'classes.txt'))
    arrays, file = _npz_of(folder)
    if 'y' not in arrays:
        raise ValueError(f'{file}: has no labels y; {did_you_mean("y", arrays)}')
    labels = arrays.pop('y').astype(np.int32)
    features = {name: one for name, one in arrays.items() if one.ndim == 2}
    if not features or not labels.size:
        raise ValueError(f'{file}: has no features [N, D] beside y; {did_you_mean("", arrays)}')
    chosen = which.split('+') if which else list(features)
    for name in chosen:
        if name not in features:
            raise ValueError(f'{file}: has no features {name!r}; {did_you_mean(name, features)}')
        if len(features[name]) != len(labels):
            raise ValueError(f'{file}: {len(features[name])} of {name}, but {len(labels)} of y')
    if labels.min() < 0 or labels.max() >= len(names):
        raise ValueError(
            f'{file}: y is in {labels.min()}..{labels.max()}; expected 0..{len(names) - 1}, the '
            'rows of classes.txt'
        )
    vectors = np.concatenate([_shares(features[name]) for name in chosen], axis=1)
    seen, unseen = (_numbers(folder / f'{of}classes.txt', names) for of in ('train', 'test'))
    rows = np.flatnonzero(np.isin(labels, seen))
    kept, held = (rows[part] for part in stratified(labels[rows], 0.2))
    first = seen[: len(seen) * 3 // 4]
    splits = {
        'trainval': kept,
        'test_seen': held,
        'test_unseen': np.flatnonzero(np.isin(labels, unseen)),
        'train': kept[np.isin(labels[kept], first)],
        'val': kept[~np.isin(labels[kept], first)],
    }
    return vectors_of(str(folder), names, vectors, labels, with_validation(splits, labels))


def with_validation(splits: dict[str, np.ndarray], labels: np.ndarray) -> dict[str, np.ndarray]:
    """The splits, and those that validate as the test ones test."""
    rows = splits['train']
    kept, held = (rows[part] for part in stratified(labels[rows], 0.2))
    return splits | {'val_train': kept, 'val_seen': held, 'val_unseen': splits['val']}


def _npz_of(folder: Path) -> tuple[dict[str, np.ndarray], Path]:
    files = sorted(folder.glob('*.npz'))
    if len(files) != 1:
        raise ValueError(f'{folder}: holds {len(files)} .npz files; expected one, with features')
    return load_arrays(files[0]), files[0]


def _shares(histograms: np.ndarray) -> np.ndarray:
    histograms = histograms.astype(np.float32)
    return histograms / np.maximum(histograms.sum(axis=1, keepdims=True), 1e-12)


def _numbers(file: Path, names: tuple[str, ...]) -> list[int]:
    wanted = [plain(line) for line in lines(file)]
    for name in wanted:
        if name not in names:
            raise ValueError(f'{file}: there is no class {name!r}; {did_you_mean(name, names)}')
    return [names.index(name) for name in wanted]


def vectors_of(
    name: str,
    classes: tuple[str, ...],
    vectors: np.ndarray,
    labels: np.ndarray,
    splits: dict[str, np.ndarray],
) -> Dataset:
    """Feature vectors [N, D] as a data set.

    Raises:
      ValueError: a feature is not finite.
    """
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if bad.size:
        raise ValueError(f'{name}: row {bad[0]} has features that are not finite')
    sizes = {split: len(rows) for split, rows in splits.items()}

    def read(split: str, rows: np.ndarray) -> Part:
        chosen = splits[split][rows]
        return Part(labels[chosen], functools.partial(_row, vectors, chosen))

    return Dataset(classes, sizes, read)


def _row(vectors: np.ndarray, rows: np.ndarray, row: int) -> np.ndarray:
    return vectors[rows[row]]
