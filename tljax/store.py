"""Arrays on disk that are computed once: whole, or to go on with, and never a half one for whole.

A store is a folder with one *shelf* for each key, which holds `.npy` files that anybody can read:

    <label>-<digest of the key>/key.json        what the arrays are of
                                NAME.npy        a whole array
                                NAME.part       the beginning of one, of as many rows as
                                NAME.part.json  says that it has

A part becomes whole by being renamed after its last row is on the disk.
"""

import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tljax import workdir

SAVE_SECONDS = 2.0  # at most so much work is lost with the machine; a killed process loses less
DTYPE = np.dtype('<f4')


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, in hexadecimal digits; equal values give equal digests."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def shelf(root: Path | str, label: str, key: Mapping) -> Path:
    """The folder for the arrays of a key, whether or not it is there.

    Args:
      root: the store.
      label: begins the folder's name.
      key: JSON; all that the arrays depend on.

    Raises:
      ValueError: the folder is there, but is of another key.
    """
    folder = Path(root) / f'{label}-{digest(key)[:16]}'
    file = folder / 'key.json'
    if file.exists() and digest(workdir.read_json(file).get('key')) != digest(key):
        raise ValueError(f'{file} is of other settings than its folder; delete {folder}')
    return folder


def claim(folder: Path, key: Mapping, about: Mapping) -> None:
    """Writes down what a new folder is of; `about` is JSON for people, and no part of the key."""
    if not (folder / 'key.json').exists():
        workdir.write_json(folder / 'key.json', {'key': key, 'about': about})


def load(folder: Path, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """A whole array, memory-mapped and read-only; None if it is not there.

    Raises:
      ValueError: the file is damaged or has another shape.
    """
    path = folder / f'{name}.npy'
    if not path.exists():
        return None
    try:
        array = np.load(path, mmap_mode='r', allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f'{path} is damaged ({error}); delete it to compute it anew') from None
    if (array.shape, array.dtype) != (shape, DTYPE):
        raise ValueError(
            f'{path} holds {array.dtype} {list(array.shape)}, expected {DTYPE} {list(shape)}; '
            'delete it to compute it anew'
        )
    return array


class Writer:
    """Appends rows to several arrays of equal length; goes on where an earlier writer stopped.

    Attributes:
      rows: how many all of them have.
    """

    def __init__(self, folder: Path, shapes: Mapping[str, tuple[int, ...]]):
        """Raises ValueError if the disk has no room for what is missing."""
        self.folder, self.shapes = folder, dict(shapes)
        kept = {name: self._kept(name) for name in shapes}
        self.rows, self.saved = min(kept.values()), time.monotonic()
        self._check_room()
        self.files = {name: self._opened(name) for name in shapes}

    def __enter__(self) -> 'Writer':
        return self

    def __exit__(self, kind, *_) -> None:
        if kind:  # stopped: not even the last seconds are lost
            self._save()
        for file in self.files.values():
            file.close()

    def append(self, blocks: Mapping[str, np.ndarray]) -> None:
        """The next rows of every array."""
        for name, file in self.files.items():
            file.write(np.ascontiguousarray(blocks[name], DTYPE).data)
        self.rows += len(next(iter(blocks.values())))
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self._save()

    def finish(self) -> None:
        """All rows are there: the parts become whole."""
        self._save()
        for name, shape in self.shapes.items():
            assert self.rows == shape[0], f'{name}: {self.rows} rows of {shape[0]}'
            self._part(name).replace(self.folder / f'{name}.npy')
            self._note(name).unlink()

    def _part(self, name: str) -> Path:
        return self.folder / f'{name}.part'

    def _note(self, name: str) -> Path:
        return self.folder / f'{name}.part.json'

    def _kept(self, name: str) -> int:
        """How many rows a part surely has."""
        if not (self._part(name).exists() and self._note(name).exists()):
            return 0
        row = self._bytes(name) // self.shapes[name][0]
        there = (self._part(name).stat().st_size - len(_header(self.shapes[name]))) // row
        return max(0, min(there, workdir.read_json(self._note(name))['rows']))

    def _opened(self, name: str):
        """The part, cut back to the rows that all have, open for appending."""
        path, header = self._part(name), _header(self.shapes[name])
        row = self._bytes(name) // self.shapes[name][0]
        file = path.open('r+b' if path.exists() else 'w+b')
        file.write(header)
        file.truncate(len(header) + self.rows * row)
        file.seek(0, os.SEEK_END)
        return file

    def _save(self) -> None:
        # First the rows, then the word that they are there.
        for file in self.files.values():
            file.flush()
            os.fsync(file.fileno())
        for name in self.files:
            workdir.write_json(self._note(name), {'rows': self.rows})
        self.saved = time.monotonic()

    def _bytes(self, name: str) -> int:
        return int(np.prod(self.shapes[name])) * DTYPE.itemsize

    def _check_room(self) -> None:
        whole = sum(map(self._bytes, self.shapes))
        parts = [self._part(name) for name in self.shapes]
        need = whole - sum(part.stat().st_size for part in parts if part.exists())
        free = shutil.disk_usage(self.folder).free
        if need > free:
            raise ValueError(
                f'{self.folder}: {", ".join(self.shapes)} need {need / 1e9:.1f} GB more, but '
                f'{free / 1e9:.1f} GB are free there; pool maps, ask for fewer endpoints, or '
                'choose another place'
            )


def _header(shape: tuple[int, ...]) -> bytes:
    """How a .npy file of an array begins."""
    file = io.BytesIO()
    about = {'descr': DTYPE.str, 'fortran_order': False, 'shape': tuple(shape)}
    np.lib.format.write_array_header_1_0(file, about)
    return file.getvalue()
