"""The sentence on top of a report: it says what the verdicts say, and no more."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tljax import wording
from tljax.wording import Row

_MOST_LISTED = 6  # more values than that are counted: 'at 7 of 12 label counts'


class Headline(NamedTuple):
    """What a comparison says, in words."""

    title: str
    others: list[tuple[str, str]]  # (arm, sentence) of every arm that the title is not about
    warnings: list[str]  # negative transfer, one sentence per arm


def headline(
    rows: Sequence[Row], metric: str = 'accuracy', *, lower_is_better: bool = False
) -> Headline:
    """Turns the rows of `verdict.compare` into sentences.

    The title is about the arm with the best balance of verdicts, then of differences. Where no
    arm helps, the title says so. Every significant loss is repeated as a warning. The ceiling gets
    a sentence of its own.

    Example:
        >>> headline(rows).title
        'Fine tuned helps at every label count: +23.1 points over scratch at 1 label per class,
        +1.2 points at 50.'
    """
    baseline = next((row['arm'] for row in rows if row['verdict'] == 'baseline'), 'baseline')
    arms: dict[str, list[Row]] = {}
    for row in _without_constants(rows):
        if row['verdict'] not in ('baseline', 'ceiling'):
            arms.setdefault(row['arm'], []).append(row)
    sign = -1 if lower_is_better else 1
    sentences = {arm: _sentence(own, baseline, metric) for arm, own in arms.items()}
    lead = max(arms, key=lambda arm: _balance(arms[arm], sign), default=None)
    if lead and any(row['verdict'] == 'helps' for row in arms[lead]):
        title = sentences.pop(lead)
    else:
        title, used = _no_help(arms, sentences, wording.arm_label(baseline))
        sentences = {arm: text for arm, text in sentences.items() if arm not in used}
    warnings = [_warning(own, baseline, metric) for own in arms.values()]
    others = list(sentences.items()) + _ceiling(rows, metric, lower_is_better)
    return Headline(title, others, list(filter(None, warnings)))


def _ceiling(rows: Sequence[Row], metric: str, lower_is_better: bool) -> list[tuple[str, str]]:
    """How far the best arm is from the ceiling, where there is one and one setting."""
    top = [row for row in rows if row['verdict'] == 'ceiling']
    rivals = [row for row in rows if row['verdict'] not in ('baseline', 'ceiling')] or rows
    best = wording.best(rivals, lower_is_better=lower_is_better)
    if len(top) != 1 or best is None or best.get('gap_mean') is None:
        return []
    unit = ' points' if wording.in_per_cent(metric) else ''
    gap = wording.plus_minus(best['gap_mean'], best['gap_ci95'], metric, signed=True)
    ceiling, arm = wording.arm_label(top[0]['arm']), wording.arm_label(best['arm'])
    text = f'{wording.capital(ceiling)} is the ceiling: {gap}{unit} over {arm}.'
    return [(top[0]['arm'], text)]


def _without_constants(rows: Sequence[Row]) -> list[Row]:
    # An axis with one value tells no rows apart; only the label count is worth repeating.
    axes = [axis for axis in wording.axes_of(rows) if axis not in wording.NOUNS]
    spread = {axis: {wording.freeze(row[axis]) for row in rows if axis in row} for axis in axes}
    constant = {axis for axis, values in spread.items() if len(values) < 2}
    return [{key: value for key, value in row.items() if key not in constant} for row in rows]


def _balance(rows: Sequence[Row], sign: int) -> tuple[float, float]:
    verdicts = [row['verdict'] for row in rows]
    gains = [sign * row['delta_mean'] for row in rows if row['delta_mean'] is not None]
    score = (verdicts.count('helps') - verdicts.count('hurts')) / len(rows)
    return score, sum(gains) / len(gains) if gains else -math.inf


def _no_help(
    arms: Mapping[str, Sequence[Row]], sentences: Mapping[str, str], baseline: str
) -> tuple[str, Sequence[str]]:
    """A title where no arm helps anywhere, and the arms whose own sentence it makes needless."""
    rows = [row for own in arms.values() for row in own]
    verdicts = {row['verdict'] for row in rows}
    if not rows:
        return f'Only {baseline} was run: there is nothing to compare it with.', ()
    if verdicts == {'unclear'}:
        reasons = {row['reason'] for row in rows}
        why = f': {reasons.pop()}' if len(reasons) == 1 else ''
        used = list(arms) if why else ()
        return f'Nothing can be said yet about the difference to {baseline}{why}.', used
    if len(arms) == 1:
        return next(iter(sentences.values())), list(arms)
    if 'hurts' in verdicts:
        hurt = [a for a, own in arms.items() if any(row['verdict'] == 'hurts' for row in own)]
        names = wording.listed([wording.arm_label(arm) for arm in hurt])
        return f'No arm helps over {baseline}, and {names} hurt{"s" * (len(hurt) == 1)}.', ()
    return f'No arm differs significantly from {baseline}.', ()


def _sentence(rows: Sequence[Row], baseline: str, metric: str) -> str:
    """One clause per verdict, in the order in which they appear along the axis."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row['verdict'], []).append(row)
    clauses, name, told = [], wording.arm_label(baseline), False
    for verdict, group in groups.items():
        where = _where(group, rows, verdict, first=not clauses)
        if verdict in ('helps', 'hurts'):
            points = _points(group, rows, metric, '' if told else name, whole=len(groups) == 1)
            form = '{}{}: {}' if len(groups) == 1 else '{}{} ({})'
            clauses.append(form.format(verdict, where, points))
            told = True
        elif verdict == 'neutral':
            whom = f' from {name}' if len(groups) == 1 else ''
            clauses.append(f'does not differ significantly{whom}{where}')
        else:
            reasons = {row['reason'] for row in group}
            why = f' ({reasons.pop()})' if len(reasons) == 1 else ''
            clauses.append(f'cannot be judged{where}{why}')
    return f'{wording.capital(wording.arm_label(rows[0]["arm"]))} {wording.listed(clauses)}.'


def _where(rows: Sequence[Row], every: Sequence[Row], verdict: str, *, first: bool) -> str:
    """' at every label count', ' at 1, 2 and 5 labels per class', ' at 7 of 12 settings'."""
    axes = wording.axes_of(every)
    if not axes:
        return ''
    one = axes[0] if len(axes) == 1 else None
    noun = wording.NOUNS[one][0] if one in wording.NOUNS else 'value' if one else 'setting'
    of = f' of {wording.axis_label(one)}' if noun == 'value' else ''
    if len(every) == 1:
        return f' at {wording.setting_label(wording.setting_of(rows[0]))}'
    if len(rows) == len(every):
        return f' at {"every" if verdict in ("helps", "hurts") else "any"} {noun}{of}'
    if not one or len(rows) > _MOST_LISTED:
        return f' at {len(rows)} of {len(every)} {noun}s{of}'
    values = wording.listed([str(row.get(one, 'none')) for row in rows])
    return f' at {wording.value_label(one, values) if first else values}'


def _points(
    rows: Sequence[Row], every: Sequence[Row], metric: str, baseline: str, *, whole: bool
) -> str:
    """'+23.1 points over scratch at 1 label per class, +1.2 points at 50'."""
    unit = ' points' if wording.in_per_cent(metric) else ''
    if len(every) == 1:
        row = rows[0]
        delta = wording.plus_minus(row['delta_mean'], row['delta_ci95'], metric, signed=True)
        return f'{delta}{unit}{_against(row, baseline)}'
    # The whole range for one verdict everywhere, else the largest difference stands for it.
    largest = max(rows, key=lambda row: abs(row['delta_mean']))
    shown = [rows[0], rows[-1]] if whole else [largest]
    parts = []
    for row in shown:
        delta = f'{wording.amount(row["delta_mean"], metric, signed=True)}{unit}'
        against = _against(row, baseline) if not parts else ''
        parts.append(f'{delta}{against} at {_place(row, short=not whole or bool(parts))}')
    return ', '.join(parts)


def _against(row: Row, baseline: str) -> str:
    return f' {"over" if row["delta_mean"] > 0 else "against"} {baseline}' if baseline else ''


def _place(row: Row, *, short: bool) -> str:
    setting = wording.setting_of(row)
    if short and len(setting) == 1:
        return str(next(iter(setting.values())))
    return wording.setting_label(setting)


def _warning(rows: Sequence[Row], baseline: str, metric: str) -> str | None:
    lost = [row for row in rows if row['verdict'] == 'hurts']
    if not lost:
        return None
    arm, unit = wording.arm_label(lost[0]['arm']), ' points' if wording.in_per_cent(metric) else ''
    shown = sorted(lost, key=lambda row: -abs(row['delta_mean']))[:_MOST_LISTED]
    parts = []
    for row in sorted(shown, key=lost.index):
        delta = wording.plus_minus(row['delta_mean'], row['delta_ci95'], metric, signed=True)
        place = _place(row, short=bool(parts))
        parts.append(f'{delta}{unit}{f" at {place}" if place else ""}')
    rest = f', and {len(lost) - len(parts)} more' if len(lost) > len(parts) else ''
    better = wording.arm_label(baseline)
    return f'{wording.capital(arm)} is worse than {better}: {", ".join(parts)}{rest}.'
