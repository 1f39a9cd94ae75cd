"""TFDS image-classification sets, read without TensorFlow.

A prepared set is read from its ArrayRecord files; `launch/prepare.py` prepares one.
"""

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tljax.data import decode
from tljax.data.splits import Dataset, Part, did_you_mean
from tljax.types import Task

_CHUNK = 1024  # records read at once
_KEEP_BYTES = 2**27  # encoded images up to this size stay in memory


def data_dirs(data_dir: str | None) -> list[Path]:
    """The folders of prepared sets: the argument, TFDS_DATA_DIR, or TFDS's own default.

    Several are joined as in PATH: by ':', on Windows ';'. Sets are prepared into the first.
    """
    joined = data_dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
    return [Path(folder).expanduser() for folder in joined.split(os.pathsep) if folder]


def open_tfds(name: str, pixels: decode.Pixels, data_dir: str | None) -> Dataset:
    """Opens a prepared set, 'mnist', 'domainnet/clipart' (a configuration) or 'mnist:3.0.1'.

    A label that is a text, as the name of a person in 'lfw', is a class for each that occurs. A set
    without a label of its own that has tasks, as 'celeb_a', has the one class 'image'.

    Raises:
      ValueError: the set is not prepared, is not in ArrayRecord files, or has no image and label.
    """
    folder = find(name, data_dirs(data_dir))
    import tensorflow_datasets as tfds  # a second to import

    builder = tfds.builder_from_directory(folder)
    file_format = builder.info.file_format and builder.info.file_format.value
    if file_format != 'array_record':
        raise ValueError(
            f'{folder}: is prepared as {file_format}, which needs TensorFlow to read; prepare it '
            f'as array_record elsewhere by `{_command(name, "OTHER")}` and give data_dir OTHER'
        )
    found = _tasks(tfds, builder.info.features)
    image, label = _features(tfds, builder.info, name, found)
    tasks = {} if [*found] == [label] else found  # the label itself is no further task
    if pixels.channels is None:
        channels = builder.info.features[image].shape[-1]
        pixels = pixels._replace(channels=channels if channels in (1, 3) else 3)
    sizes = {split: info.num_examples for split, info in builder.info.splits.items()}
    classes = _classes(tfds, builder, label)
    keys = (image, label)
    read = functools.partial(_read, builder, f'tfds:{name}', keys, classes, pixels, tasks=tasks)
    return Dataset(classes, sizes, read, tasks)


def _classes(tfds, builder, key: str | None) -> tuple[str, ...]:
    """The names of the classes; of labels that are texts, those of all splits, in their order."""
    if key is None:
        return ('image',)
    if not isinstance(builder.info.features[key], tfds.features.Text):
        return tuple(builder.info.features[key].names)
    cache = Path(builder.data_dir) / f'.{key}.npy'  # every record has to be read for them
    if cache.is_file():
        return tuple(np.load(cache).tolist())
    found = set()
    for split, info in builder.info.splits.items():
        for chunk in _chunks(_records(builder, split), list(range(info.num_examples))):
            found |= {_text(_example(record)[key]) for record in chunk}
    names = sorted(found)
    _save(cache, np.array(names))
    return tuple(names)


def _records(builder, split: str):
    """The examples of a split as they are stored."""
    import tensorflow_datasets as tfds

    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    return builder.as_data_source(split, deserialize_method=raw)


def _chunks(records, rows: list[int]) -> Iterator[Sequence[bytes]]:
    """Some rows, read in bulk, which is twenty times faster than one by one."""
    for start in range(0, len(rows), _CHUNK):
        yield records.__getitems__(rows[start : start + _CHUNK])


def _text(feature) -> str:
    return feature.bytes_list.value[0].decode()


def _tasks(tfds, features) -> dict[str, Task]:
    """The features that are class labels, sequences of these, dicts of flags, or real numbers."""
    found = {}
    for name, feature in features.items():
        if isinstance(feature, tfds.features.ClassLabel):
            found[name] = Task('classification', tuple(feature.names))
        elif isinstance(feature, tfds.features.Sequence) and isinstance(
            feature.feature, tfds.features.ClassLabel
        ):
            found[name] = Task('multilabel', tuple(feature.feature.names))
        elif isinstance(feature, tfds.features.FeaturesDict) and all(
            one.shape == () and one.np_dtype == np.bool_ for one in feature.values()
        ):
            # Sorted, for what TFDS wrote of them is read back in any order.
            found[name] = Task('multilabel', tuple(sorted(feature)))
        elif type(feature) is tfds.features.Scalar and feature.np_dtype in (np.float32, np.float64):
            found[name] = Task('regression', ('value',))
    return found


def find(name: str, folders: Sequence[Path]) -> Path:
    """Where a set is prepared: `folder/name[/config]/version`, the newest version.

    The first of the folders that has the set counts.

    Raises:
      ValueError: none has it, or it is there in several configurations and none is named.
    """
    name, _, version = name.partition(':')
    for folder in folders:
        if found := _versions(name, folder, version):
            return max(
                found, key=lambda path: [int(n) for n in path.name.split('.') if n.isdigit()]
            )
    prepared = {info.relative_to(folder).parts[0] for folder in folders for info in _infos(folder)}
    hint = did_you_mean(name, sorted(prepared)) if prepared else 'none are'
    raise ValueError(
        f'tfds:{name}{":" * bool(version)}{version} is not prepared in '
        f'{" or ".join(map(str, folders))} (of what is prepared there, {hint}); run '
        f'`{_command(name, str(folders[0]))}`, which for the sets of TFDS needs the extra '
        "`pip install -e '.[prepare]'`"
    )


def _versions(name: str, folder: Path, version: str) -> list[Path]:
    """The prepared versions of a set in a folder: all, or the one asked for."""
    top = folder / name
    found = [info.parent for info in top.glob('*/dataset_info.json')]
    if not found:
        found = [info.parent for info in top.glob('*/*/dataset_info.json')]
        configs = sorted({path.parent.name for path in found})
        if len(configs) > 1:
            raise ValueError(
                f'tfds:{name} is prepared in several configurations; name one of them: '
                + ', '.join(f'tfds:{name}/{config}' for config in configs)
            )
    return [path for path in found if version in ('', path.name)]


def _infos(data_dir: Path) -> list[Path]:
    return [*data_dir.glob('*/*/dataset_info.json'), *data_dir.glob('*/*/*/dataset_info.json')]


def _command(name: str, data_dir: str | None) -> str:
    return f'python launch/prepare.py {name}' + (f' --data_dir {data_dir}' if data_dir else '')


def _features(tfds, info, name: str, tasks: dict[str, Task]) -> tuple[str, str | None]:
    """The names of the image and of the class feature: the set's own pair, or the only ones.

    None in place of the latter where there is no such one, but tasks.
    """
    items = info.features.items()
    texts = [k for k, f in items if k == 'label' and isinstance(f, tfds.features.Text)]
    kinds = {
        tfds.features.Image: [k for k, f in items if _is_image(tfds, f)],
        tfds.features.ClassLabel: [k for k, f in items if isinstance(f, tfds.features.ClassLabel)]
        or texts,
    }
    pair = []
    for kind, own in zip(kinds.values(), info.supervised_keys or ('image', 'label'), strict=False):
        named = [key for key in (own, 'image', 'label') if key in kind]
        if not named and len(kind) != 1 and pair and tasks:
            return pair[0], None
        if not named and len(kind) != 1:
            features = ', '.join(f'{k}: {type(f).__name__}' for k, f in info.features.items())
            raise ValueError(
                f'tfds:{name} is not an image-classification set: expected an Image and a '
                f'ClassLabel feature, found {features}'
            )
        pair.append((named or kind)[0])
    return pair[0], pair[1]


def _is_image(tfds, feature) -> bool:
    return isinstance(feature, tfds.features.Image) and feature.np_dtype != np.float32


def _read(
    builder,
    name: str,
    keys: tuple[str, str | None],
    classes: tuple[str, ...],
    pixels,
    split: str,
    rows: np.ndarray,
    tasks: dict[str, Task],
) -> Part:
    records = _records(builder, split)
    cache = Path(builder.data_dir) / f'.{split}.{keys[1]}.npy'
    labels, kept = _labels(records, rows.tolist(), keys[1], classes, cache)
    bad = np.flatnonzero(labels < 0)
    if bad.size:
        raise ValueError(
            f'{name}: row {rows[bad[0]]} of split {split!r} has label {labels[bad[0]]}, which TFDS '
            'gives to unlabelled examples; use another split'
        )
    targets = _targets(records if kept is None else kept, rows, kept is not None, tasks)
    if kept is not None:
        records, rows = kept, np.arange(len(kept))
    fetch = functools.partial(_fetch, records, rows, f'{name} {split}', keys[0], pixels)
    return Part(labels, fetch, targets=targets)


def _targets(records, rows: np.ndarray, kept: bool, tasks: dict[str, Task]) -> dict:
    """Labels [n, ...] of further features; reading them needs every record once."""
    if not tasks:
        return {}
    columns: dict[str, list] = {task: [] for task in tasks}
    for chunk in [records] if kept else _chunks(records, rows.tolist()):
        for record in chunk:
            example = _example(record)
            for name, task in tasks.items():
                columns[name].append(_value(example, name, task))
    kinds = {'regression': np.float32}
    return {name: np.array(columns[name], kinds.get(tasks[name].kind, np.int32)) for name in tasks}


def _value(example, name: str, task: Task):
    """The label of a task, as `Task` has it."""
    if task.kind == 'regression':
        return list(example[name].float_list.value)
    if f'{name}/{task.classes[0]}' in example:  # a dict of flags
        return [example[f'{name}/{flag}'].int64_list.value[0] for flag in task.classes]
    values = list(example[name].int64_list.value)
    if task.kind == 'classification':
        return values[0]
    return np.isin(np.arange(len(task.classes)), values)


def _labels(
    records, rows: list[int], key: str | None, classes: tuple[str, ...], cache: Path
) -> tuple[np.ndarray, Sequence[bytes] | None]:
    """Labels [n] int32 without decoding an image, and the records if they are small enough to keep.

    A large split has to be read whole, so its labels are then written beside it, for the next time.
    """
    if key is None:
        return np.zeros(len(rows), np.int32), None
    if cache.is_file() and len(known := np.load(cache)) == len(records):
        return known[rows], None
    numbers = {name: number for number, name in enumerate(classes)}
    labels, kept, size = [], [], 0
    for chunk in _chunks(records, rows):
        features = [_example(record)[key] for record in chunk]
        labels += [_number(feature, numbers) for feature in features]
        size += sum(map(len, chunk))
        kept = kept + chunk if size <= _KEEP_BYTES else []
    labels = np.array(labels, np.int32)
    if size <= _KEEP_BYTES:
        return labels, kept
    if len(rows) == len(records):
        _save(cache, labels)
    return labels, None


def _number(feature, numbers: dict[str, int]) -> int:
    """A label as the number of its class."""
    return numbers[_text(feature)] if feature.bytes_list.value else feature.int64_list.value[0]


def _save(cache: Path, values: np.ndarray) -> None:
    # Renamed into place, for several runs may write at once; a read-only folder goes without.
    with contextlib.suppress(OSError):
        draft = cache.with_suffix(f'.{os.getpid()}.npy')
        np.save(draft, values)
        draft.replace(cache)


def _example(record: bytes):
    # Parsed here because TFDS, asked for the label, would also look at the image.
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example.FromString(record).features.feature


def _fetch(records, rows: np.ndarray, name: str, key: str, pixels, row: int) -> np.ndarray:
    data = _example(records[int(rows[row])])[key].bytes_list.value[0]
    return decode.from_bytes(data, f'{name} row {row}', pixels)
