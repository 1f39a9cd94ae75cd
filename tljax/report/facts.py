"""The report's facts: members, parameters, timing, curves and confusions, read from run records."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tljax import wording
from tljax.report.records import Run, Study, array
from tljax.wording import Row

_MOST_MEMBERS = 200
_MOST_PAIRS = 8
_MOST_LOSSES = 4


def pretty(config: Mapping[str, Any]) -> str:
    """Writes a config as indented JSON, or nothing if there is none."""
    return json.dumps(config, indent=2, ensure_ascii=False, default=str) if config else ''


def plain(value: Any) -> str:
    """Writes any JSON value briefly."""
    if value is None:
        return '–'
    if isinstance(value, float):
        return f'{value:.4g}'.replace('nan', 'NaN')
    if isinstance(value, list | tuple):
        return ', '.join(plain(item) for item in value)
    return str(value)


def seconds(value: float) -> str:
    """Writes a duration: '3.2 s', '4 min 10 s', '2 h 5 min'."""
    if value < 100:
        return f'{value:.1f} s'
    minutes, rest = divmod(round(value), 60)
    return f'{minutes} min {rest} s' if minutes < 100 else f'{minutes // 60} h {minutes % 60} min'


def run_tiles(run: Run) -> list[dict[str, str]]:
    """Key numbers of a single run."""
    table, count = parameters(run), len(run.results['members'])
    found = [(str(count), 'members' if count > 1 else 'member')]
    if table['total']:
        found.append((f'{table["trained"]:,}', f'of {table["total"]:,} parameters trained'))
    times = run.results.get('seconds') or {}
    if 'train' in times:
        found.append((seconds(times['train']), 'training'))
    return [{'value': value, 'label': label, 'tone': ''} for value, label in found]


def verdict_tiles(rows: Sequence[Row], metric: str) -> list[dict[str, str]]:
    """Key numbers of a comparison: largest gain, largest loss, how many verdicts of which kind."""
    unit = ' points' if wording.in_per_cent(metric) else ''
    found = []
    for kind, name in (('helps', 'largest gain'), ('hurts', 'largest loss')):
        chosen = [row for row in rows if row['verdict'] == kind]
        if chosen:
            row = max(chosen, key=lambda row: abs(row['delta_mean']))
            place = wording.setting_label(wording.setting_of(row))
            label = ', '.join(filter(None, [wording.arm_label(row['arm']), place]))
            value = wording.amount(row['delta_mean'], metric, signed=True) + unit
            found.append({'value': value, 'label': f'{name}: {label}', 'tone': kind})
    kinds = [row['verdict'] for row in rows]
    counts = {kind: kinds.count(kind) for kind in ('helps', 'neutral', 'hurts', 'unclear')}
    value = '  '.join(
        f'{wording.MARKS[kind]}\N{NO-BREAK SPACE}{n}' for kind, n in counts.items() if n
    )
    label = 'verdicts: ' + ', '.join(f'{n} {kind}' for kind, n in counts.items() if n)
    return [*found, {'value': value or '–', 'label': label if value else 'verdicts', 'tone': ''}]


def of_record(record: Run | Study) -> list[tuple[str, str]]:
    """What holds for the whole page, as (name, value)."""
    results = record.results
    runs = list(record.runs.values()) if isinstance(record, Study) else [record]
    protocols = list(dict.fromkeys(run.results.get('protocol', '') for run in runs))
    found = [('Protocol', results.get('protocol') or (protocols[0] if len(protocols) == 1 else ''))]
    seeds = {
        member['seed'] for run in runs for member in run.results['members'] if 'seed' in member
    }
    found.append(('Seeds', ', '.join(map(str, sorted(seeds, key=str)))))
    total = sum(map(_total, runs))
    found.append(('Computing time', seconds(total) if total else ''))
    places = {_environment(run) for run in runs} - {''}
    found.append(('Environment', ' / '.join(sorted(places))))
    found.append(('Notes', ' '.join(_notes(record))))
    return [(name, value) for name, value in found if value]


def _total(run: Run) -> float:
    times = run.results.get('seconds') or {}
    return times['total'] if 'total' in times else sum(times.values())


def _notes(record: Run | Study) -> list[str]:
    if isinstance(record, Run):
        return list(record.notes)
    return [f'{name}: {note}' for name, run in record.runs.items() for note in run.notes]


def _environment(run: Run) -> str:
    """'jax 0.10.2, device cpu, …'."""
    environment = run.results.get('environment') or {}
    return ', '.join(f'{key} {plain(value)}' for key, value in environment.items())


def of_run(name: str, run: Run, look) -> dict[str, Any]:
    """The collapsed facts of one run."""
    results = run.results
    steps = results.get('step')
    return {
        **{'label': wording.arm_label(name), 'glyph': look.glyph if look else '·'},
        'colour': look.variable if look else 'faint',
        'description': results.get('description', ''),
        'command': results.get('command', ''),
        'facts': [
            (key, value)
            for key, value in (
                ('Method', results.get('method', '')),
                ('Protocol', results.get('protocol', '')),
                ('Selection', results.get('selection', '')),
                ('Steps', plain(sorted(set(steps))) if isinstance(steps, list) else plain(steps)),
                (
                    'Time',
                    ', '.join(
                        f'{k} {seconds(v)}' for k, v in (results.get('seconds') or {}).items()
                    ),
                ),
            )
            if value and value != '–'
        ],
        'parameters': parameters(run),
        'members': members(run),
        'config': pretty(run.config),
    }


def parameters(run: Run) -> dict[str, Any]:
    """The table of parameters and who trains them."""
    lines, total, trained = [], 0, 0
    for entry in run.results.get('parameters') or []:
        size = math.prod(entry.get('shape') or [])
        total += size
        trained += size if entry.get('trained_by') else 0
        lines.append(
            {
                'path': entry['path'],
                'shape': '×'.join(map(str, entry.get('shape') or [])) or 'scalar',
                'trained_by': entry.get('trained_by') or '',
                'rate': plain(entry.get('rate')) if entry.get('trained_by') else '',
            }
        )
    share = 100 * trained / total if total else 0
    return {'lines': lines, 'total': total, 'trained': trained, 'share': f'{share:.3g}'}


def members(run: Run) -> dict[str, Any]:
    """One line per member: its axes and every score that is one number."""
    table = run.results['members']
    axes = list(dict.fromkeys(axis for member in table for axis in member))
    columns = [
        (stream, metric, scores[metric])
        for stream, scores in run.results['scores'].items()
        for metric in scalar_scores(scores, len(table))
    ]
    lines = []
    for i, member in enumerate(table[:_MOST_MEMBERS]):
        line = [{'text': plain(member.get(axis)), 'bad': False} for axis in axes]
        for _, metric, values in columns:
            value = math.nan if values[i] is None else float(values[i])
            bad = not math.isfinite(value)
            line.append({'text': wording.amount(value, metric), 'bad': bad})
        lines.append(line)
    names = [
        f'{stream} {metric.replace("_", " ")}{" %" if wording.in_per_cent(metric) else ""}'
        for stream, metric, _ in columns
    ]
    return {'columns': [*axes, *names], 'lines': lines, 'left_out': len(table) - len(lines)}


def scalar_scores(scores: Mapping[str, Any], count: int) -> list[str]:
    """Names the scores that are one number per member."""
    number = lambda value: value is None or isinstance(value, int | float)
    return [
        name
        for name, values in scores.items()
        if isinstance(values, list) and len(values) == count and all(map(number, values))
    ]


def series(
    run: Run, stream: str, metric: str, axis: str | None, value: Any
) -> tuple[list[float], np.ndarray] | None:
    """Returns (steps [T], values [T, M']) of the members at one axis value, or None."""
    return _column(run, stream, metric, _members_at(run, axis, value))


def choice(run: Run, axis: str | None, value: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns (strengths [R], validation accuracy [R, M']) where a run chose among several."""
    found, chosen = run.results.get('outcome') or {}, _members_at(run, axis, value)
    if not {'strengths', 'curve'} <= found.keys() or not chosen:
        return None
    strengths, curves = array(found['strengths'][chosen[0]]), array(found['curve'])[chosen]
    return (strengths, curves.T) if len(strengths) > 1 else None


def _members_at(run: Run, axis: str | None, value: Any) -> list[int]:
    return [
        i
        for i, member in enumerate(run.results['members'])
        if axis is None or axis not in member or member[axis] == value
    ]


def _column(run: Run, stream: str, metric: str, chosen: Sequence[int]):
    steps, values = [], []
    for entry in run.metrics:
        column = (entry.get(stream) or {}).get(metric)
        if not isinstance(column, list) or len(column) != len(run.results['members']):
            continue
        numbers = array(column)
        if numbers.ndim == 1 and chosen:
            steps.append(entry['step'])
            values.append(numbers[list(chosen)])
    return (steps, np.array(values)) if steps else None


def training_losses(run: Run) -> list[tuple[str, tuple]]:
    """The losses that a run was trained on, over all its members."""
    every = range(len(run.results['members']))
    names = dict.fromkeys(name for entry in run.metrics for name in entry.get('train') or {})
    chosen = [name for name in names if name.endswith('loss')][:_MOST_LOSSES]
    found = [(name, _column(run, 'train', name, every)) for name in chosen]
    return [(name, line) for name, line in found if line]


def phase_starts(run: Run) -> dict[str, float]:
    """Where each phase but the first begins."""
    first: dict[str, float] = {}
    for entry in run.metrics:
        first.setdefault(str(entry.get('phase', '')), entry['step'])
    return dict(list(first.items())[1:])


def class_names(run: Run, count: int) -> list[str]:
    """The names of the classes, or their numbers where there are none."""
    names = [str(name) for name in run.results.get('classes') or []]
    return names if len(names) == count else [str(i) for i in range(count)]


def confused_pairs(counts: np.ndarray, classes: Sequence[str]) -> list[dict[str, str]]:
    """The largest entries off the diagonal, largest count first."""
    totals = counts.sum(axis=1)
    shares = np.divide(
        counts, totals[:, None], out=np.zeros_like(counts), where=totals[:, None] > 0
    )
    wrong = counts * (1 - np.eye(len(counts)))
    flat = np.argsort(-wrong, axis=None, kind='stable')[:_MOST_PAIRS]
    pairs = [np.unravel_index(i, shares.shape) for i in flat]
    return [
        {
            **{'true': classes[i], 'predicted': classes[j]},
            **{'share': f'{100 * shares[i, j]:.1f}', 'count': f'{counts[i, j]:.0f}'},
        }
        for i, j in pairs
        if wrong[i, j] > 0
    ]
