"""What a set of images is made of, so that nothing computed from it is used once it has changed."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from tljax.data import tfds
from tljax.data.sources import Source


def of(spec: str, source: Source, data_dir: str | None = None) -> str:
    """Changes whenever the files that a source was read from do: SHA-256 in hexadecimal digits.

    An .npz file is read. Of folders of images and of TFDS's records, which may be huge, places,
    sizes and the times of the last change stand for the contents; so a copy counts as another set.
    Labels are always part of it.

    Args:
      spec: the string that `sources.load` made the source from.
      source: what it made.
      data_dir: as given to it.
    """
    kind, _, rest = spec.partition(':')
    found = hashlib.sha256(source.labels.astype('<i4').tobytes())
    if kind == 'npz':
        with Path(rest).expanduser().open('rb') as file:
            found.update(hashlib.file_digest(file, 'sha256').digest())
    elif kind == 'sklearn':
        import sklearn

        found.update(sklearn.__version__.encode())
    elif kind == 'tfds':
        folder = tfds.find(rest, tfds.data_dirs(data_dir))
        found.update(_stats(sorted(folder.iterdir())))
    elif kind in ('awa', 'xian'):
        folder = Path(rest.partition('#')[0]).expanduser()
        found.update(_stats(sorted(folder.iterdir())))
    else:
        found.update(_stats(source.keys))
    return found.hexdigest()


def digests(config, streams: Mapping, held: Mapping) -> dict[str, dict[str, str]]:
    """A `digest` of every stream that is drawn from or held out, by place in config.data."""
    return {
        place: {n: digest(s.source, config.data[place][n].dataset) for n, s in each.items()}
        for place, each in (('streams', streams), ('evaluate', held))
    }


def digest(source: Source, dataset: str) -> str:
    """SHA-256 of the labels of a source, its classes, its rows and the names of their files.

    Names count from the folder of the set, so that a set may move. No image is read: unlike
    `of`, this is the same on another machine.
    """
    root = str(Path(dataset.partition(':')[2]).expanduser())
    files = [key.removeprefix(root) for key in source.keys or ()]
    tasks = [[name, task.kind, task.classes] for name, task in source.tasks.items()]
    text = json.dumps([source.classes, tasks, files])
    found = hashlib.sha256(text.encode() + source.labels.astype('<i4').tobytes())
    for values in source.targets.values():
        found.update(np.ascontiguousarray(values, '<f4').tobytes())
    return found.hexdigest()


def _stats(files: Iterable[Path | str]) -> bytes:
    """Place, size and times of files, in order.

    Not only the time of the last write: tools that unpack or synchronise set that one back.
    """
    lines = []
    for file in files:
        info = os.stat(file)
        lines.append(
            f'{os.path.realpath(file)} {info.st_size} {info.st_mtime_ns} {info.st_ctime_ns}'
        )
    return '\n'.join(lines).encode('utf-8', 'surrogateescape')
