"""A run's directory: claimed for one config, its files written whole or not at all.

config.json    the full config; under 'start' that of the run it starts from, under 'tuning' that
               of the run that tells its hyper-parameters
data.json      digests of the labels and files that it is trained and evaluated on
metrics.jsonl  a line per evaluation
results.json   final numbers with members, seeds and protocol
figures/       pictures of the method, and where features lie
checkpoints/   Orbax
report.html    one self-contained page
"""

import contextlib
import fcntl
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tljax import config as configs
from tljax import hosts

DATA = 'data.json'
# Keys that may differ between the calls of one run: they change when things happen and where,
# not what is computed. The run that another starts from is known by its config, not by its place.
FREE = (
    *('title', 'description', 'save_every', 'tensorboard', 'sharding', 'block'),
    *('data.data_dir', 'data.workers', 'init.from', 'tuned.by', 'features'),
)
STREAMS = {'streams': configs.stream, 'evaluate': configs.held_out}


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A draft to write to, which then takes a file's place: readers see the old one or the new.

    Of several hosts, which all have the same to write, the first one's does.
    """
    draft = path.with_name(f'.{path.name}.{hosts.number()}.{os.getpid()}.tmp')
    try:
        yield draft
        if hosts.leads():
            draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes atomically."""
    with replaced(path) as draft:
        draft.write_text(text, encoding='utf-8')


def write_json(path: Path, value: Any) -> None:
    """The same for JSON, if there is anything new."""
    text = _dumps(value, indent=1) + '\n'
    if not path.exists() or path.read_text() != text:
        write_text(path, text)


def _dumps(value: Any, **options) -> str:
    """JSON proper, in which numbers that are not finite are null."""

    def plain(value):
        if isinstance(value, Mapping):
            return {key: plain(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [plain(one) for one in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(plain(value), allow_nan=False, **options)


def read_json(path: Path) -> Any:
    """Raises ValueError, naming the file, where it is absent or not JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f'{path} does not exist; is {path.parent} a run directory?') from None
    except json.JSONDecodeError as error:
        raise ValueError(f'{path} is not valid JSON: {error}') from None


@contextlib.contextmanager
def held(
    directory: Path, what: str = 'workdir', waiting: Callable[[], None] | None = None
) -> Iterator[None]:
    """Makes a directory and keeps other processes out of it until the block ends.

    Args:
      directory: to hold.
      what: it is, for messages.
      waiting: called before waiting for another process to leave; None: that is an error.

    Raises:
      ValueError: it cannot be written, or another process works in it.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / '.lock').open('a')
    except OSError as error:
        raise ValueError(
            f'{what} {directory} cannot be written ({error.strerror}); choose another --{what}'
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is None:
                raise ValueError(
                    f'{what} {directory} is in use by another process; wait for it, or choose '
                    f'another --{what}'
                ) from None
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks
        yield


def check(directory: Path, config: Mapping) -> None:
    """Refuses a directory that is not this config's to use.

    Raises:
      ValueError: it holds other files, or a run of another config.
    """
    path = directory / 'config.json'
    if not path.exists():
        _refuse(directory, [p.name for p in directory.glob('[!.]*')])
    elif differences := _differences(read_json(path), _jsonable(config)):
        raise ValueError(
            f'workdir {directory} belongs to a run of another config; choose another --workdir, '
            'or delete it to start over. First differences:\n' + '\n'.join(differences[:5])
        )


def check_study(directory: Path, runs: Mapping[str, Mapping]) -> None:
    """The same for a study, whose runs have a folder and a config each.

    Raises:
      ValueError: it holds a single run, other runs, or a run of another config.
    """
    path = directory / 'config.json'
    if not path.exists():
        _refuse(directory, [p.name for p in directory.glob('[!.]*') if p.name not in runs])
    elif not read_json(path).get('runs'):
        raise ValueError(f'workdir {directory} belongs to a single run; choose another --workdir')
    else:
        folders = [p.parent.name for p in directory.glob('*/config.json')]
        _refuse(directory, [name for name in folders if name not in runs])
    for name, config in runs.items():
        check(directory / name, config)


def _refuse(directory: Path, strangers: Iterable[str]) -> None:
    if strangers := sorted(strangers):
        raise ValueError(
            f'workdir {directory} holds {", ".join(strangers[:5])}, of which this config knows '
            'nothing; choose an empty or a new one'
        )


def claim(directory: Path, config: Mapping, data: Mapping | None = None) -> None:
    """Makes a directory this config's, and these `digests`'; `check` and `check_data` come before.

    A run of an older version, which has no digests, gets those of the data as they are now.
    """
    write_json(directory / 'config.json', _jsonable(config))
    if data is not None:
        write_json(directory / DATA, data)


def check_data(directory: Path, config, data: Mapping[str, Mapping[str, str]]) -> None:
    """Refuses data that are no longer those that a run was begun with.

    Raises:
      ValueError: a stream has another of the `digests` than the directory has, if it has any.
    """
    path = directory / DATA
    known = read_json(path) if path.exists() else {}
    for place, streams in data.items():
        for name, one in streams.items():
            if known.get(place, {}).get(name, one) != one:
                raise ValueError(
                    f'workdir {directory}: the images or labels of stream {name!r} '
                    f'({config.data[place][name].dataset}) have changed since this run began; '
                    'use another --workdir, or bring back the data as they were'
                )


def _jsonable(config: Mapping) -> dict:
    return json.loads(json.dumps(config, default=dict))


def _differences(old: Mapping, new: Mapping) -> list[str]:
    old, new = _leaves(old), _leaves(new)
    return [
        f'  {key}: {old.get(key, "absent")!r} there, {new.get(key, "absent")!r} now'
        for key in sorted({**old, **new})
        if old.get(key) != new.get(key)
        and not (key not in old and _is_default(key, new[key]))
        and not any(f'.{key}.'.find(f'.{free}.') >= 0 for free in FREE)
    ]


def _is_default(key: str, value: Any) -> bool:
    """Whether a key has its default: so it was before there was such a key."""
    path = key.split('.')
    while path[0] in ('start', 'tuning'):
        path = path[1:]
    if path[0] == 'data' and path[1] in STREAMS:
        tree, path = STREAMS[path[1]](), path[3:]
    else:
        tree = configs.default().to_dict()
    return _leaves(_jsonable(tree)).get('.'.join(path), ...) == value


def _leaves(tree: Any, prefix: str = '') -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    found = {}
    for key, value in tree.items():
        found |= _leaves(value, f'{prefix}.{key}' if prefix else key)
    return found


class MetricsFile:
    """metrics.jsonl: appended to, and cut back to a checkpoint's number of lines on resume.

    Attributes:
      lines: what is in it, which other hosts than the one that writes may not see yet.
    """

    def __init__(self, path: Path, lines: int):
        self.path, self.lines = path, read_lines(path)[:lines]
        write_text(path, ''.join(json.dumps(line) + '\n' for line in self.lines))

    def append(self, record: Mapping) -> None:
        text = _dumps(record)
        self.lines.append(json.loads(text))
        if hosts.leads():
            with self.path.open('a') as file:
                file.write(text + '\n')


def read_lines(path: Path) -> list[dict]:
    """The lines of metrics.jsonl, up to one that a kill cut short; none where there is no file."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return found
