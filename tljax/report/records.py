"""Reads what a run or a study left in its directory; where it cannot, it names the file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Run(NamedTuple):
    """One run directory."""

    name: str
    path: Path
    results: Mapping[str, Any]
    config: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]  # the lines of metrics.jsonl
    notes: Sequence[str]  # what is missing or was left out, for the reader of the report


class Study(NamedTuple):
    """A directory of runs that are compared; `runs` holds the arms, then the supporting runs."""

    path: Path
    results: Mapping[str, Any]
    config: Mapping[str, Any]
    runs: Mapping[str, Run]


def load(directory: str | Path) -> Run | Study:
    """Loads a run or study directory; its results.json tells which of the two it is."""
    path = Path(directory)
    results = _json(path / 'results.json')
    if 'arms' not in results:
        return _run(path, results)
    names = [*results['arms'], *results.get('supporting', [])]
    runs = {name: _run(path / name, _json(path / name / 'results.json')) for name in names}
    if results.get('baseline') not in ('', *results['arms']):
        raise ValueError(
            f'{path / "results.json"}: the baseline {results.get("baseline")!r} is none of the '
            f'arms {results["arms"]}.'
        )
    return Study(path, results, _optional_json(path / 'config.json')[0], runs)


def array(values: Any) -> np.ndarray:
    """Turns nested lists of numbers into floats; null (how JSON writes NaN) becomes NaN."""
    return np.asarray(values, dtype=object).astype(float)


def _run(path: Path, results: Mapping[str, Any]) -> Run:
    file = path / 'results.json'
    if not results.get('members') or not isinstance(results.get('scores'), dict):
        raise ValueError(f'{file}: "members" or "scores" is missing, so this is no finished run.')
    config, note = _optional_json(path / 'config.json')
    metrics, notes = _lines(path / 'metrics.jsonl')
    return Run(path.name, path, results, config, metrics, [*filter(None, [note]), *notes])


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding='utf-8'))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'{file} does not exist. A run writes it when it ends: is this a run or study '
            'directory, and did the run finish?'
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f'{file} is not valid JSON ({error}).') from error
    if not isinstance(value, dict):
        raise ValueError(f'{file} holds a {type(value).__name__}, not an object.')
    return value


def _optional_json(file: Path) -> tuple[dict[str, Any], str | None]:
    try:
        return _json(file), None
    except FileNotFoundError:
        return {}, f'{file.name} is missing.'
    except ValueError as error:
        return {}, str(error)


def _lines(file: Path) -> tuple[list[dict], list[str]]:
    if not file.exists():
        return [], [f'{file.name} is missing: no learning curves.']
    metrics, broken = [], []
    for number, line in enumerate(file.read_text(encoding='utf-8', errors='replace').splitlines()):
        try:
            entry = json.loads(line) if line.strip() else None
        except json.JSONDecodeError:
            entry = None
            broken.append(str(number + 1))
        if isinstance(entry, dict) and 'step' in entry:
            metrics.append(entry)
    notes = [f'{file.name}: line {", ".join(broken)} left out, not valid JSON.'] if broken else []
    return metrics, notes
