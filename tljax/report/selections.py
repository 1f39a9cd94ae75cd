"""Sections of a report with a line per arm and setting: which step is kept, and other scores."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tljax import selection, wording
from tljax.report.panels import Question, chip
from tljax.report.records import Run, Study
from tljax.wording import Row


def section(record: Run | Study, question: Question) -> dict[str, Any] | None:
    """A line per arm and setting, a column per selection; None without a label-free one."""
    results = record.results
    if isinstance(record, Study):
        columns = results.get('selections') or {}
    else:
        arms = {name: run.results for name, run in question.arms.items()}
        columns = selection.compare(arms, '', results.get('selection', ''), question.metric)
    if not columns:
        return None
    return {
        'names': [_title(name, results['selection']) for name in columns],
        'lines': _lines(
            columns,
            question,
            lambda name, row: _cell(
                row, question.metric, _steps(question.arms[row['arm']], name, row)
            ),
        ),
    }


def also(results: Mapping, question: Question) -> dict[str, Any] | None:
    """A column per other score of a study; None where no other is asked for."""
    columns = results.get('also')
    if not columns:
        return None
    cell = lambda name, row: _cell(row, name.partition(' ')[2], ())
    names = [name.replace('_', ' ') for name in columns]
    return {'names': names, 'lines': _lines(columns, question, cell)}


def _lines(columns: Mapping[str, Sequence[Row]], question: Question, cell: Callable) -> list[dict]:
    """Lines of arms and settings, whose cells are `cell(name of the column, row)`."""
    return [
        {
            **chip(rows[0]['arm'], question.looks[rows[0]['arm']]),
            'setting': wording.setting_label(wording.setting_of(rows[0])),
            'cells': [cell(name, row) for name, row in zip(columns, rows, strict=True)],
        }
        for rows in zip(*columns.values(), strict=True)
    ]


def _title(name: str, configured: str) -> str:
    notes = {selection.LAST: 'last step', selection.ORACLE: 'oracle (looks at test labels)'}
    return notes.get(name, wording.arm_label(name)) + ' ✓' * (name == configured)


def _cell(row: Row, metric: str, steps: Sequence[int]) -> dict[str, str]:
    judged = row['verdict'] not in wording.UNJUDGED
    low, high = min(steps, default=None), max(steps, default=None)
    return {
        'score': wording.plus_minus(row['mean'], row['ci95'], metric),
        'verdict': row['verdict'] if judged else '',
        'mark': wording.MARKS[row['verdict']],
        'steps': '' if low is None else f'step {low}' if low == high else f'steps {low} to {high}',
    }


def _steps(run: Run, name: str, row: Row) -> list[int]:
    """The steps that a selection keeps of the members behind a row."""
    wanted: Mapping = wording.setting_of(row)
    steps = run.results.get('selections', {}).get(name, {}).get('step', [])
    return [
        step
        for member, step in zip(run.results['members'], steps, strict=False)
        if all(member.get(axis, value) == value for axis, value in wanted.items())
    ]
