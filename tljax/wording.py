"""How the rows of a comparison read: their axes and settings, and numbers as people write them.

A row is a plain dict, as it stands in results.json: `COLUMNS`, and one key per member axis.
"""

import json
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

Row = dict[str, Any]

# Every key of a row that is not named here is a member axis.
COLUMNS = (
    *('arm', 'n', 'failed', 'mean', 'std', 'ci95'),
    *('pairs', 'delta_mean', 'delta_std', 'delta_ci95', 'verdict', 'reason'),
    *('gap_mean', 'gap_ci95'),
)
UNJUDGED = ('baseline', 'ceiling', None)  # verdicts that are none
MARKS = {'helps': '▲', 'hurts': '▼', 'neutral': '≈', 'unclear': '?'} | dict.fromkeys(UNJUDGED, '')
# axis -> what one setting of it is called, one of its values, several of its values.
NOUNS = {'labels_per_class': ('label count', 'label per class', 'labels per class')}


def axes_of(rows: Iterable[Row]) -> list[str]:
    """Names the member axes of rows, in order of appearance."""
    return list(dict.fromkeys(key for row in rows for key in row if key not in COLUMNS))


def setting_of(row: Row) -> dict[str, Any]:
    """Returns the axis values of a row."""
    return {key: value for key, value in row.items() if key not in COLUMNS}


def best(rows: Sequence[Row], *, lower_is_better: bool = False) -> Row | None:
    """Returns the row of the best mean; rows with failed members or of a ceiling cannot win."""
    fit = [row for row in rows if row['mean'] is not None and not row['failed']]
    candidates = [row for row in fit if row['verdict'] != 'ceiling']
    pick = min if lower_is_better else max
    return pick(candidates, key=lambda row: row['mean'], default=None)


def by_setting(rows: Iterable[Row]) -> dict[Hashable, list[Row]]:
    """Groups rows that share all axis values, in order."""
    groups: dict[Hashable, list[Row]] = {}
    for row in rows:
        groups.setdefault(freeze(setting_of(row)), []).append(row)
    return groups


def freeze(value: Any) -> Hashable:
    """Makes a hashable key of any JSON value; equal values give equal keys (1 and 1.0 too)."""
    if isinstance(value, Mapping):
        return tuple(sorted((key, freeze(item)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return tuple(freeze(item) for item in value)
    return value if isinstance(value, int | float | str | None) else json.dumps(value, default=str)


def amount(value: float | None, metric: str = 'accuracy', *, signed: bool = False) -> str:
    """Writes a score for people: accuracies in per cent (0.931 -> '93.1'), others plainly."""
    if value is None:
        return '–'
    if not math.isfinite(value):
        return str(value).replace('nan', 'NaN').replace('-', '−')
    value = 100 * value if in_per_cent(metric) else value
    text = f'{value:{"+" if signed else ""}{".1f" if in_per_cent(metric) else ".3g"}}'
    # A rounded zero has no sign.
    return text.lstrip('+-') if not float(text) else text.replace('-', '−')


def in_per_cent(metric: str) -> bool:
    """Whether a metric is a share between 0 and 1 that people read in per cent."""
    shares = ('error_rate', 'harmonic_mean', 'auc', 'eer', 'tar_at_far_1')
    return 'accuracy' in metric or metric.endswith(shares)


def plus_minus(
    mean: float | None, half: float | None, metric: str = 'accuracy', *, signed: bool = False
) -> str:
    """Writes 'mean ± half width', without the second part where there is no interval."""
    text = amount(mean, metric, signed=signed)
    return text if half is None else f'{text} ± {amount(half, metric)}'


def arm_label(name: str) -> str:
    """Turns a directory's name into words: 'fine_tuned' -> 'fine tuned'."""
    return name.replace('_', ' ').strip() or name


def axis_label(axis: str) -> str:
    """Names an axis: 'labels per class', or 'rate' for 'optimizer.rate'."""
    return NOUNS[axis][2] if axis in NOUNS else axis.split('.')[-1].replace('_', ' ')


def value_label(axis: str, value: Any) -> str:
    """Writes one axis value as words: '1 label per class', 'rate 0.1'."""
    if axis in NOUNS:
        return f'{value} {NOUNS[axis][1 if value in (1, "1") else 2]}'
    return f'{axis_label(axis)} {value}'


def setting_label(setting: Mapping[str, Any]) -> str:
    """Writes axis values as words: '5 labels per class, rate 0.1'."""
    return ', '.join(value_label(axis, value) for axis, value in setting.items())


def listed(words: Sequence[str]) -> str:
    """Joins words as a sentence does: 'a, b and c'."""
    return ' and '.join(filter(None, [', '.join(words[:-1]), *words[-1:]]))


def capital(text: str) -> str:
    """Starts a sentence; unlike `str.capitalize` it leaves the rest alone."""
    return text[:1].upper() + text[1:]
