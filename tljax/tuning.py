"""Hyper-parameters and steps of a run, told by another run on other data: config.tuned.

The other run, a sibling in a study, has a member for each setting (config.members) and evaluations
on the way. For zero-shot learning it is trained on some of the seen classes and tested on others,
so that no class of the final test has a part in the choice.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from tljax import workdir
from tljax.types import unknown


class Best(NamedTuple):
    """What is chosen."""

    steps: int
    hparams: Mapping[str, float]
    score: float  # the mean over seeds there


def applied(config) -> ConfigDict:
    """The config with what the run `config.tuned.by` tells; the config itself if there is none.

    Raises:
      ValueError: as `best`, or a hyper-parameter is a member axis of this run too.
    """
    if not config.tuned.by:
        return config
    found = best(Path(config.tuned.by), config.tuned.stream, config.tuned.metric)
    for name in found.hparams:
        if name in config.members and len(config.members[name]):
            raise ValueError(f'members.{name}: tuned.by={config.tuned.by} tells {name}; leave it')
    result = config.copy_and_resolve_references()
    result.steps = found.steps
    result.hparams.update(found.hparams)
    return result


def best(run: Path, stream: str, metric: str) -> Best:
    """The setting and the evaluation of a finished run with the highest mean score over seeds.

    The calibration that is best there, if it is known, is one of the hyper-parameters.

    Raises:
      ValueError: the run is not finished, or has no such score.
    """
    members = workdir.read_json(run / 'results.json')['members']
    lines = workdir.read_lines(run / 'metrics.jsonl')
    for kind, name, known in (
        ('tuned.stream', stream, [key for key, one in lines[-1].items() if isinstance(one, dict)]),
        ('tuned.metric', metric, lines[-1].get(stream, {})),
    ):
        if name not in known:
            raise unknown(kind, name, known)
    groups = _settings(members)
    table = [
        [np.mean([line[stream][metric][m] for m in rows]) for rows in groups.values()]
        for line in lines
    ]
    row, column = np.unravel_index(np.argmax(table), np.shape(table))
    setting, rows = list(groups.items())[column]
    hparams = dict(setting)
    if 'best_calibration' in (unseen := lines[row].get('unseen', {})):
        hparams['calibration'] = float(np.mean([unseen['best_calibration'][m] for m in rows]))
    return Best(lines[row]['step'], hparams, float(table[row][column]))


def _settings(members: Sequence[Mapping]) -> dict[tuple, list[int]]:
    """Settings, without the seed -> the members that have each."""
    groups: dict[tuple, list[int]] = {}
    for number, member in enumerate(members):
        setting = tuple((axis, value) for axis, value in member.items() if axis != 'seed')
        groups.setdefault(setting, []).append(number)
    return groups
