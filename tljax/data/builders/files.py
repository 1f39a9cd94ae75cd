"""Raw files of a data set: from a folder that the user has, or downloaded and checked."""

import hashlib
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tljax.data import decode

_ARCHIVES = ('.zip', '.tar', '.tar.gz', '.tgz')


class Remote(NamedTuple):
    """A public file of known content."""

    url: str
    name: str  # what it is called in a manual_dir
    md5: str  # '': it is checked by what is in it


def manual_dir(dl_manager) -> Path | None:
    """The user's folder of raw files, or None where none was given."""
    try:
        return Path(dl_manager.manual_dir)
    except AssertionError:  # TFDS's way to say that the folder is missing or empty
        return None


def fetch(dl_manager, remote: Remote, repacked: bool = False) -> Path:
    """The file in the manual_dir, or else downloaded.

    Args:
      dl_manager: of TFDS.
      remote: where it is.
      repacked: whether the manual_dir's may be another archive of the same files.

    Raises:
      ValueError: its content is not what it should be.
    """
    folder = manual_dir(dl_manager)
    path = folder / remote.name if folder else None
    own = path is not None and path.is_file()
    if not own:
        path = Path(dl_manager.download(remote.url))
    if not remote.md5 or (own and repacked):
        return path
    with open(path, 'rb') as file:
        found = hashlib.file_digest(file, 'md5').hexdigest()
    if found != remote.md5:
        raise ValueError(
            f'{path}: has MD5 {found}, but {remote.name} of {remote.url} has {remote.md5}; remove '
            'the file and fetch it again'
        )
    return path


def members(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Path and reader of each file below a folder or in an archive, in a fixed order.

    Archives in a folder (zip, tar) are looked into, as if they were folders of their names. Hidden
    files are passed over. A reader is to be called before the next file is asked for.

    Raises:
      ValueError: an archive can't be read.
    """
    if path.is_file():
        yield from _archived(path)
        return
    for parent, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not _hidden(name))
        for name in sorted(name for name in names if not _hidden(name)):
            file = Path(parent, name)
            inner = file.relative_to(path).as_posix()
            if name.endswith(_ARCHIVES):
                yield from ((f'{inner}/{member}', read) for member, read in _archived(file))
            else:
                yield inner, file.read_bytes


def _hidden(name: str) -> bool:
    return name.startswith(('.', '__MACOSX'))


def _archived(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    try:
        found = _zipped(path) if zipfile.is_zipfile(path) else _tarred(path)
        for name, read in found:
            name = name.removeprefix('./')
            if not any(map(_hidden, name.split('/'))):
                yield name, read
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(
            f"{path}: can't be read as a zip or tar archive ({error}); fetch it again"
        ) from error


def _zipped(path: Path):
    with zipfile.ZipFile(path) as archive:
        for item in archive.infolist():
            if not item.is_dir():
                yield item.filename, lambda: archive.read(item)


def _tarred(path: Path):
    with tarfile.open(path, 'r|*') as archive:
        for item in archive:
            if item.isfile():
                yield item.name, lambda: archive.extractfile(item).read()


def image(name: str, read: Callable[[], bytes]) -> bytes:
    """An encoded image, once it has proved to decode.

    Raises:
      ValueError: it does not.
    """
    data = read()
    decode.from_bytes(data, name, decode.Pixels())
    return data
