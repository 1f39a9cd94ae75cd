"""Raw files of a data set: from a folder that the user has, or downloaded and checked."""

import hashlib
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ARCHIVES = ('.zip', '.tar', '.tar.gz', '.tgz')


class Remote(NamedTuple):
    """A public file of known content."""

    url: str
    name: str  # what it is called in a manual_dir
    md5: str


def manual_dir(dl_manager) -> Path | None:
    """The user's folder of raw files, or None where none was given."""
    try:
        return Path(dl_manager.manual_dir)
    except AssertionError:  # TFDS's way to say that the folder is missing or empty
        return None


def fetch(dl_manager, remote: Remote) -> Path:
    """The file in the manual_dir, or else downloaded.

    Raises:
      ValueError: its content is not what it should be.
    """
    folder = manual_dir(dl_manager)
    path = folder / remote.name if folder else None
    if path is None or not path.is_file():
        path = Path(dl_manager.download(remote.url))
    with open(path, 'rb') as file:
        found = hashlib.file_digest(file, 'md5').hexdigest()
    if found != remote.md5:
        raise ValueError(
            f'{path}: has MD5 {found}, expected {remote.md5} as of {remote.url}; remove it and '
            'fetch it again'
        )
    return path


def members(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Path and reader of each file below a folder or inside a zip or tar archive.

    A reader is to be called before the next file is asked for.

    Raises:
      ValueError: the archive can't be read.
    """
    if path.is_dir():
        for file in sorted(path.rglob('*')):
            if file.is_file():
                yield file.relative_to(path).as_posix(), file.read_bytes
        return
    try:
        if path.suffix == '.zip':
            with zipfile.ZipFile(path) as archive:
                for item in archive.infolist():
                    if not item.is_dir():
                        yield item.filename, lambda: archive.read(item)
        else:
            with tarfile.open(path, 'r|*') as archive:
                for item in archive:
                    if item.isfile():
                        yield item.name.removeprefix('./'), lambda: archive.extractfile(item).read()
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{path}: can't be read as an archive ({error}); fetch it again") from error
