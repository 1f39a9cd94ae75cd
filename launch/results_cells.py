"""What the README's tables are made of: rows, cells, and what was published beside them."""

import json
import re
from pathlib import Path

# Study, or SOURCE,TARGET -> arm -> what was reported, and where.
PUBLISHED = Path(__file__).resolve().parents[1] / 'configs/results/published.json'
# SOURCE,TARGET in the argument of configs/adapt.py, and what is behind them.
_PAIR = re.compile(r"configs/adapt\.py:[^ ,]+,([^ ,']+,[^ ,']+)([^ ']*)")


def header(*titles: str) -> list[str]:
    return [row_of(*titles), '|---' * len(titles) + '|']


def row_of(*cells) -> str:
    return '| ' + ' | '.join(map(str, cells)) + ' |'


def cell(row: dict, plain: bool, scale: int = 100) -> str:
    text = number(row['mean'], scale)
    if row['std'] is not None:  # one member has no spread
        text += f' ± {number(row["std"], scale)}'
    if plain:
        return text
    change = number(row['delta_mean'], scale, '+')
    if row['delta_ci95'] is not None:
        change += f' ± {number(row["delta_ci95"], scale)}'
    # An interval of no width says that all seeds agree, not how sure that is.
    note = f' ({row["reason"]})' if row['delta_ci95'] == 0 and row.get('reason') else ''
    return f'{text}<br>{change}: {row["verdict"]}{note}'


def number(value: float, scale: int, sign: str = '') -> str:
    return f'{scale * value:{sign}.{1 if scale == 100 else 3}f}'


def words(selection: str) -> str:
    known = {'last': 'last step', 'oracle': 'oracle step (target labels)'}
    plain = selection.replace('_', ' ').replace('tar at far 1', 'TAR at FAR 1 %')
    return known.get(selection, re.sub(r'\b(auc|eer)\b', lambda found: found[0].upper(), plain))


def published(name: str, study: dict) -> dict[str, str]:
    """Arm -> what was reported of it: for the pair that the study adapts, or a study of this name.

    Behind it stands by how much our reported number falls short, but not of one that is marked as
    of sampled sets. A study of those has texts of its own: 'SOURCE,TARGET,sampled'.
    """
    known = json.loads(PUBLISHED.read_text())
    pair = _PAIR.search(study['command'])
    if pair and 'only=' in pair[2]:
        return {}  # of a target without some classes nothing was
    if pair:
        name = f'{pair[1]},sampled' if 'sampled' in pair[2] else pair[1]
    reported = known.get(name, {})
    return {
        arm: text + ('' if 'sampled' in text else _short(_ours(study, arm), text))
        for arm, text in reported.items()
        if arm in (*study['arms'], 'single')
    }


def _ours(study: dict, arm: str) -> list[float]:
    """What stands beside the numbers of a text: an arm's score, or those of its tasks."""
    tables = [one['rows'] for one in study.get('tasks', {}).get('verdicts', {}).values()]
    tables = tables or [study['comparison']]
    return [row['mean'] for rows in tables for row in rows if row['arm'] == arm]


def _short(ours: list[float], text: str) -> str:
    """'<br>-1.9' where ours is that much below a number of a text, else ''.

    Numbers are joined by ' / ', in the order of `ours`, and a bracket follows.
    """
    written = re.match(r'(\d+\.\d+(?: / \d+\.\d+)*) \(', text)
    numbers = written[1].split(' / ') if written else []
    if not numbers or len(numbers) > len(ours):
        return ''
    below = []
    for value, theirs in zip(ours, numbers, strict=False):
        digits = len(theirs.partition('.')[2])
        gap = round(round(100 * value, digits) - float(theirs), digits)
        below.append(f'{gap:.{digits}f}' if gap < 0 else '0')
    return f'<br>{" / ".join(below)}' if {*below} != {'0'} else ''
