"""A run's directory: claimed for one config, its files written whole or not at all.

config.json    the full config
metrics.jsonl  a line per evaluation
results.json   final numbers with members, seeds and protocol
checkpoints/   Orbax
report.html    one self-contained page
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Keys that may differ between the calls of one run: they change when things happen and where,
# not what is computed.
FREE = ('save_every', 'tensorboard', 'sharding', 'block', 'data.data_dir', 'data.workers')


def write_json(path: Path, value: Any) -> None:
    """Writes atomically: a reader sees the old file or the new one."""
    draft = path.with_name(f'.{path.name}.{os.getpid()}')
    draft.write_text(json.dumps(value, indent=1) + '\n')
    draft.replace(path)


def read_json(path: Path) -> Any:
    """Raises ValueError, naming the file, where it is absent or not JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f'{path} does not exist; is {path.parent} a run directory?') from None
    except json.JSONDecodeError as error:
        raise ValueError(f'{path} is not valid JSON: {error}') from None


def claim(directory: Path, config: Mapping) -> Path:
    """Makes the directory this config's, or finds that it already is.

    Raises:
      ValueError: it cannot be written, holds other files, or belongs to another config.
    """
    directory = Path(directory).absolute()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f'.writable.{os.getpid()}'
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(
            f'workdir {directory} cannot be written ({error.strerror}); choose another --workdir'
        ) from None
    config, path = json.loads(json.dumps(config)), directory / 'config.json'
    if not path.exists():
        strangers = sorted(p.name for p in directory.iterdir() if not p.name.startswith('.'))
        if strangers:
            raise ValueError(
                f'workdir {directory} is not a run directory: it holds {", ".join(strangers[:5])} '
                'and no config.json; choose an empty or a new one'
            )
    elif differences := _differences(read_json(path), config):
        raise ValueError(
            f'workdir {directory} belongs to a run of another config; choose another --workdir, '
            'or delete it to start over. First differences:\n' + '\n'.join(differences[:5])
        )
    write_json(path, config)
    return directory


def _differences(old: Mapping, new: Mapping) -> list[str]:
    old, new = _leaves(old), _leaves(new)
    return [
        f'  {key}: {old.get(key, "absent")!r} there, {new.get(key, "absent")!r} now'
        for key in sorted({**old, **new})
        if old.get(key) != new.get(key)
        and not any(f'.{key}.'.find(f'.{free}.') >= 0 for free in FREE)
    ]


def _leaves(tree: Any, prefix: str = '') -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    found = {}
    for key, value in tree.items():
        found |= _leaves(value, f'{prefix}.{key}' if prefix else key)
    return found


class MetricsFile:
    """metrics.jsonl: appended to, and cut back to a checkpoint's step on resume."""

    def __init__(self, path: Path, step: int):
        self.path = path
        kept = [line for line in _lines(path) if line['step'] <= step] if step else []
        draft = path.with_name(f'.{path.name}.{os.getpid()}')
        draft.write_text(''.join(json.dumps(line) + '\n' for line in kept))
        draft.replace(path)

    def append(self, record: Mapping) -> None:
        with self.path.open('a') as file:
            file.write(json.dumps(record) + '\n')


def _lines(path: Path) -> list[dict]:
    if not path.exists():
        return []
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:  # the line that a kill cut short
            break
    return found
