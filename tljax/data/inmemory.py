"""Sets that come as arrays: scikit-learn's embedded digits and .npz files."""

import functools
import re
from pathlib import Path

import numpy as np

from tljax.data import decode
from tljax.data.labels import digit_tasks, from_arrays
from tljax.data.splits import Dataset, Part, did_you_mean, stratified

_KEY = re.compile(r'((?P<before>\w+)_)?(?P<kind>images?|labels?|x|y)(_(?P<after>\w+))?')


def open_sklearn(name: str, pixels: decode.Pixels) -> Dataset:
    """Opens scikit-learn's handwritten digits, which need no download: 1,797 grey images, 8x8.

    Grey values 0 to 16 become 0 to 255. One third of every class, drawn by a fixed seed, is the
    split 'test', the rest is 'train'.
    """
    if name != 'digits':
        raise ValueError(f'there is no data set sklearn:{name}; {did_you_mean(name, ["digits"])}')
    from sklearn.datasets import load_digits  # half a second to import

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int32)
    tasks, targets = digit_tasks(labels, digits.images)
    tables = {
        split: _rows((images, labels, targets), rows)
        for split, rows in zip(('train', 'test'), stratified(labels, 1 / 3), strict=True)
    }
    names = tuple(str(n) for n in digits.target_names)
    return _dataset('sklearn:digits', names, tables, pixels, tasks)


def open_npz(path: str, pixels: decode.Pixels) -> Dataset:
    """Opens an .npz file with an image and a label array, or one pair for each split.

    Names are `image` and `label` (or `images`, `labels`, `x`, `y`), for splits with the split's
    name before or after: `train_image`, `x_train`. Images are [N, H, W] or [N, H, W, C], of whole
    numbers in 0..255 or floats in 0..1, or feature vectors: floats [N, D] of any size. Labels are
    whole numbers [N] or [N, 1]. An array `classes` may hold the class names. Without splits, every
    class is divided by a fixed seed, 80 % 'train' and 20 % 'test'. Rows keep their order. Arrays
    `label_TASK` (`train_label_TASK`) are further tasks: whole numbers [N] are classes, named by
    `classes_TASK` if that is there, and [N, C] multi-label, both with -1 where a label is absent;
    floats [N] or [N, C] are a regression, with NaN there.

    Raises:
      ValueError: the file or its arrays are not like that; the message says what was found.
    """
    file = Path(path).expanduser()
    arrays = load_arrays(file)
    classes = arrays.pop('classes', None)
    tasks, targets = from_arrays(str(file), arrays)
    tables = {}
    for split, (images, labels) in _pairs(file, arrays).items():
        where = f'{file} ({split})' if split else str(file)
        table = (_images(where, images), _labels(where, labels, len(images), classes))
        own = targets.get(split, {})
        if set(own) != set(tasks) or any(len(values) != len(images) for values in own.values()):
            found = {task: list(values.shape) for task, values in own.items()}
            raise ValueError(
                f'{where}: has the further labels {found}; expected those of the tasks '
                f'{sorted(tasks)} for {len(images)} images in every split'
            )
        tables[split] = (*table, own)
    if classes is None:
        classes = range(1 + max(labels.max() for _, labels, _ in tables.values()))
    if len(classes) < 2:
        raise ValueError(f'{file}: has only the class {classes[0]!r}; expected two or more')
    if '' in tables:
        table = tables.pop('')
        for split, rows in zip(('train', 'test'), stratified(table[1], 0.2), strict=True):
            tables[split] = _rows(table, rows)
    return _dataset(str(file), tuple(str(name) for name in classes), tables, pixels, tasks)


def _dataset(
    name: str, classes: tuple[str, ...], tables: dict, pixels: decode.Pixels, tasks: dict
) -> Dataset:
    sizes = {split: len(labels) for split, (_, labels, _) in tables.items()}
    return Dataset(classes, sizes, functools.partial(_read, name, tables, pixels), tasks)


def _rows(table: tuple, rows: np.ndarray) -> tuple:
    images, labels, targets = table
    return images[rows], labels[rows], {task: values[rows] for task, values in targets.items()}


def _read(name: str, tables: dict, pixels: decode.Pixels, split: str, rows: np.ndarray) -> Part:
    images, labels, targets = _rows(tables[split], rows)
    return Part(labels, functools.partial(_fetch, name, images, pixels), targets=targets)


def _fetch(name: str, images: np.ndarray, pixels: decode.Pixels, row: int) -> np.ndarray:
    if images.ndim == 2:
        return images[row]
    return decode.from_array(images[row], f'{name} row {row}', pixels)


def load_arrays(file: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name.

    Raises:
      ValueError: there is no such file, or it cannot be read.
    """
    if not file.is_file():
        raise ValueError(f'{file}: there is no such file; expected an .npz with image and label')
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except Exception as error:  # zip, format and pickle errors share no class
        raise ValueError(
            f"{file}: can't be read as .npz ({error}); save plain arrays with np.savez"
        ) from None


def _pairs(file: Path, arrays: dict[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images and labels of each split; the split is '' where the arrays name none."""
    pairs = {}
    for key, array in arrays.items():
        if match := _KEY.fullmatch(key):
            split = match['before'] or match['after'] or ''
            pairs.setdefault(split, {})['image' if match['kind'][0] in 'ix' else 'label'] = array
    if not pairs or any(len(pair) < 2 for pair in pairs.values()):
        found = ', '.join(f'{key} {list(array.shape)}' for key, array in arrays.items())
        raise ValueError(
            f'{file}: expected the arrays image and label, or train_image, train_label and so on; '
            f'found {found or "none"}'
        )
    return {split: (pair['image'], pair['label']) for split, pair in pairs.items()}


def _images(where: str, images: np.ndarray) -> np.ndarray:
    """Images as uint8 [N, H, W, C], feature vectors as float32 [N, D]."""
    if images.ndim == 2 and images.dtype.kind == 'f' and images.size:
        bad = np.flatnonzero(~np.isfinite(images).all(axis=1))
        if bad.size:
            raise ValueError(f'{where}: row {bad[0]} has features that are not finite')
        return images.astype(np.float32)
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or not images.size:
        raise ValueError(
            f'{where}: images have shape {list(images.shape)}; expected [N, H, W] or [N, H, W, C] '
            'with 1 or 3 channels, or feature vectors, floats [N, D]'
        )
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind not in 'biuf':
        raise ValueError(f'{where}: images have dtype {images.dtype}; expected uint8 or floats')
    low, high = images.min(), images.max()
    top = 255 if images.dtype.kind in 'iu' else 1
    if not (low >= 0 and high <= top):  # also refuses NaN
        raise ValueError(
            f'{where}: {images.dtype} images have values in [{low}, {high}]; expected whole '
            'numbers in [0, 255] or floats in [0, 1]'
        )
    return np.round(images * np.float32(255 / top)).astype(np.uint8)


def _labels(where: str, labels: np.ndarray, count: int, classes) -> np.ndarray:
    """Labels as int32 [N], each checked to be one of the classes, where these are given."""
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.shape != (count,) or labels.dtype.kind not in 'iu':
        raise ValueError(
            f'{where}: labels are {labels.dtype} of shape {list(labels.shape)}; expected whole '
            f'numbers [{count}], one for each image'
        )
    top = len(classes) if classes is not None else 2**31
    bad = np.flatnonzero((labels < 0) | (labels >= top))
    if bad.size:
        allowed = 'at least 0' if classes is None else f'in 0..{top - 1}, as it has {top} classes'
        raise ValueError(
            f'{where}: row {bad[0]} has the label {labels[bad[0]]}; labels must be {allowed}'
        )
    return labels.astype(np.int32)
