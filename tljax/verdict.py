"""Transfer against its no-transfer twin: does it help, hurt, or make no significant difference?

Every arm of a study is compared with the baseline member by member: same seed, same labels, same
everything that both of them name. The verdict rests on the *paired* differences, so what the seeds
share (an easy draw of labelled examples lifts both arms) cancels instead of widening the interval.
"""

import difflib
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from tljax.wording import COLUMNS, Row, axes_of, freeze

SEED = 'seed'
_ROUNDING = 1e-12  # differences below this share of the values are float noise, not effects


class _Member(NamedTuple):
    index: int
    axes: dict[str, Any]
    value: float


class _Pair(NamedTuple):
    member: _Member
    twin: _Member | None
    axes: dict[str, Any]  # of both; the seed left out


def interval(values: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """Returns mean, sample standard deviation and half width of the 95 % Student-t interval.

        m = 1/n Σ x_i     s² = 1/(n-1) Σ (x_i - m)²     h = t(0.975; n-1) · s / √n

    Args:
        values: finite numbers, one per seed.

    Returns:
        `(m, s, h)`; `s` and `h` are None for n < 2, all three for n = 0.

    Example:
        >>> interval([1.0, 2.0, 3.0])  # t(0.975; 2) = 4.303
        (2.0, 1.0, 2.484137713...)
    """
    n = len(values)
    if n == 0:
        return None, None, None
    mean = float(np.mean(values))
    if n == 1:
        return mean, None, None
    std = float(np.std(values, ddof=1))
    return mean, std, float(stats.t.ppf(0.975, n - 1) * std / math.sqrt(n))


def compare(
    arms: Mapping[str, Mapping],
    baseline: str,
    stream: str = 'test',
    metric: str = 'accuracy',
    *,
    lower_is_better: bool = False,
    ceiling: str = '',
) -> list[Row]:
    """Compares every arm with the baseline, one row per arm and setting.

    Members are joined on all axes that both sides name; an axis that only one side has (an arm
    without labels, a baseline without this hyper-parameter) matches every value. A setting is a
    combination of all axes but `seed`. Over the paired differences d_i = arm_i - baseline_i,
    with `interval(d) = (m, s, h)`:

        helps: m - h > 0      hurts: m + h < 0      neutral: otherwise

    (signs swapped if lower is better). With fewer than two members on either side, or with one
    that is not finite, the verdict is `unclear` and `reason` says why.

    Args:
        arms: name -> what the run wrote into results.json.
        baseline: the arm to compare with; its own rows carry the verdict `baseline`. With '', where
            arms are tests of their own, all rows are as `summarise` gives them.
        stream: evaluation stream.
        metric: a score with one number per member.
        lower_is_better: for losses and error rates.
        ceiling: an arm that knows more than the others, such as one trained on the target's labels:
            its rows carry the verdict `ceiling`, and those of all others the paired difference
            ceiling_i - arm_i as `gap_mean` and `gap_ci95`.

    Returns:
        Rows of `COLUMNS` and one key per axis, ordered by setting, then by arm. `n` counts the
        finite members behind `mean`, `failed` the others, `pairs` those behind `delta_mean`.
        What cannot be computed is None, so that rows are valid JSON.

    Example:
        >>> compare({'scratch': a, 'fine_tuned': b}, baseline='scratch')[1]['verdict']
        'helps'
    """
    for named in filter(None, (baseline, ceiling)):
        if named not in arms:
            raise ValueError(f'No arm is named {named!r}.{_near(named, arms)}')
    if not baseline:
        rows = [row for name in arms for row in summarise(name, arms[name], stream, metric)]
        return sorted(rows, key=_by_setting(rows))
    members = {name: _members(name, arm, stream, metric) for name, arm in arms.items()}
    rows = []
    for name in arms:
        pairs = _join(members[name], members[baseline])
        if not any(pair.twin for pair in pairs):
            raise ValueError(
                f'Arm {name!r} and baseline {baseline!r} have no members in common: '
                f'{_span(members[name])} against {_span(members[baseline])}.'
            )
        for group in _groups(pairs):
            row = _row(name, group)
            row |= {'verdict': 'baseline', 'reason': None} if name == baseline else {}
            if name != baseline:
                row |= _judge(group, row, lower_is_better)
            if name == ceiling:
                row |= {'verdict': 'ceiling', 'reason': None}
            elif ceiling:
                row |= _gap(_join([pair.member for pair in group], members[ceiling]))
            rows.append(row)
    return sorted(rows, key=_by_setting(rows))


def summarise(
    name: str, results: Mapping, stream: str = 'test', metric: str = 'accuracy'
) -> list[Row]:
    """Returns the rows of a single run, with `verdict` None: there is nothing to compare with."""
    members = _members(name, results, stream, metric)
    pairs = [_Pair(member, None, _setting(member.axes)) for member in members]
    rows = [_row(name, group) | {'verdict': None, 'reason': None} for group in _groups(pairs)]
    return sorted(rows, key=_by_setting(rows))


def _members(name: str, results: Mapping, stream: str, metric: str) -> list[_Member]:
    scores = results.get('scores') or {}
    if stream not in scores:
        raise ValueError(f'Arm {name!r} was not evaluated on {stream!r}.{_near(stream, scores)}')
    if metric not in scores[stream]:
        known = scores[stream]
        raise ValueError(f'Arm {name!r} has no {metric!r} on {stream!r}.{_near(metric, known)}')
    values, axes = scores[stream][metric], results.get('members') or [{}]
    if not isinstance(values, list | tuple) or len(values) != len(axes):
        raise ValueError(f'Arm {name!r}: {metric!r} is not a list of {len(axes)} (one per member).')
    if any(isinstance(value, list | tuple | Mapping) for value in values):
        raise ValueError(f'Arm {name!r}: {metric!r} has several numbers per member; one is needed.')
    numbers = [math.nan if value is None else float(value) for value in values]
    members = [_Member(i, dict(a), v) for i, (a, v) in enumerate(zip(axes, numbers, strict=True))]
    seen: dict[Hashable, _Member] = {}
    for member in members:
        if seen.setdefault(freeze(member.axes), member) is not member:
            raise ValueError(f'Arm {name!r} has two members {member.axes}; axes must differ.')
    return members


def _join(members: list[_Member], twins: list[_Member]) -> list[_Pair]:
    ours = {axis for member in members for axis in member.axes}
    shared = sorted(ours & {axis for twin in twins for axis in twin.axes})
    key = lambda member: tuple(freeze(member.axes.get(axis)) for axis in shared)
    index: dict[Hashable, list[_Member]] = {}
    for twin in twins:
        index.setdefault(key(twin), []).append(twin)
    return [
        _Pair(member, twin, _setting((twin.axes if twin else {}) | member.axes))
        for member in members
        for twin in index.get(key(member), [None])
    ]


def _setting(axes: Mapping) -> dict[str, Any]:
    taken = sorted(set(axes) & set(COLUMNS))
    if taken:
        raise ValueError(f'A member axis may not be named {taken[0]!r}: rows use that name.')
    return {axis: value for axis, value in axes.items() if axis != SEED}


def _groups(pairs: list[_Pair]) -> list[list[_Pair]]:
    groups: dict[Hashable, list[_Pair]] = {}
    for pair in pairs:
        groups.setdefault(freeze(pair.axes), []).append(pair)
    return list(groups.values())


def _row(arm: str, group: list[_Pair]) -> Row:
    # An axis that only the twins have repeats a member, so members are counted by index.
    values = {pair.member.index: pair.member.value for pair in group}.values()
    finite = [value for value in values if math.isfinite(value)]
    row = {'arm': arm, **group[0].axes, 'n': len(finite), 'failed': len(values) - len(finite)}
    row |= dict(zip(('mean', 'std', 'ci95'), interval(finite), strict=True))
    return row | {'pairs': 0, 'delta_mean': None, 'delta_std': None, 'delta_ci95': None}


def _judge(group: list[_Pair], row: Row, lower_is_better: bool) -> Row:
    twinned = [pair for pair in group if pair.twin]
    sound = [p for p in twinned if math.isfinite(p.member.value) and math.isfinite(p.twin.value)]
    deltas = [pair.member.value - pair.twin.value for pair in sound]
    mean, std, half = interval(deltas)
    judged = {'pairs': len(deltas), 'delta_mean': mean, 'delta_std': std, 'delta_ci95': half}
    twins = {pair.twin.index for pair in twinned}
    if not twinned:
        reason = 'no baseline member at this setting'
    elif row['failed'] or len(sound) < len(twinned):
        bad = [p for p in twinned if p not in sound] or [p for p in group if not p.twin]
        seeds = ', '.join(str((p.member.axes | p.axes).get(SEED, '?')) for p in bad)
        reason = f'{len(bad)} of {len(group)} pairs not finite (seed {seeds})'
    elif row['n'] < 2 or len(twins) < 2:
        side = 'member' if row['n'] < 2 else 'baseline member'
        reason = f'one {side}: no spread to judge by'
    else:
        partial = len(twinned) < len(group)
        note = f'{len(twinned)} of {len(group)} members have a twin' if partial else None
        note = 'all differences are equal' if half == 0 and mean else note
        return judged | {'verdict': _verdict(mean, half, row, lower_is_better), 'reason': note}
    return judged | {'verdict': 'unclear', 'reason': reason}


def _gap(pairs: list[_Pair]) -> Row:
    """How far the members are below the ceiling, over those that have a finite twin there."""
    found = [pair.twin.value - pair.member.value for pair in pairs if pair.twin]
    mean, _, half = interval([gap for gap in found if math.isfinite(gap)])
    return {'gap_mean': mean, 'gap_ci95': half}


def _verdict(mean: float, half: float, row: Row, lower_is_better: bool) -> str:
    gain = -mean if lower_is_better else mean
    noise = _ROUNDING * max(1.0, abs(row['mean']))
    return 'helps' if gain - half > noise else 'hurts' if gain + half < -noise else 'neutral'


def _by_setting(rows: list[Row]):
    axes = axes_of(rows)
    seen = {axis: [freeze(row.get(axis)) for row in rows] for axis in axes}

    def key(row: Row) -> list[tuple]:
        # Numbers by size, before words in order of appearance; a missing axis before both.
        values = [row.get(axis) for axis in axes]
        return [
            (0, 0)
            if value is None
            else (1, value)
            if isinstance(value, int | float)
            else (2, seen[axis].index(freeze(value)))
            for axis, value in zip(axes, values, strict=True)
        ]

    return key


def _near(name: str, known: Iterable[str]) -> str:
    known = [str(item) for item in known]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f' Did you mean {" or ".join(map(repr, close))}?' if close else ''
    return f'{hint} There is: {", ".join(known) or "nothing"}.'


def _span(members: list[_Member]) -> str:
    values: dict[str, dict] = {}
    for member in members:
        for axis, value in member.axes.items():
            values.setdefault(axis, {})[freeze(value)] = value
    parts = [f'{axis} {", ".join(map(str, seen.values()))}' for axis, seen in values.items()]
    return '; '.join(parts) or 'a member without axes'
