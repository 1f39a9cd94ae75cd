"""The section of a report on several tasks: verdicts, how tasks bear on each other, and studies."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from tljax import verdict, wording
from tljax.report import canvas, figures
from tljax.report.panels import inline
from tljax.report.records import Run, Study, array

AFFINITIES = {'cosine': 'cosine of gradients', 'lookahead': 'inter-task affinity'}
# Arms of a study -> what they stand for, and how it is read off their names.
_STUDIES = {
    'width of what is shared, %': re.compile(r'width_(?P<per_cent>\d+)'),
    'labels of {} that are kept, %': re.compile(r'(?P<task>\w+)_1_in_(?P<one_in>\d+)'),
}


def section(record: Run | Study) -> dict[str, Any] | None:
    """The verdicts by task of a study, its mean relative changes, and the tasks' affinities."""
    found = record.results.get('tasks', {}) if isinstance(record, Study) else {}
    lines = [
        {
            'task': wording.arm_label(task),
            'arm': wording.arm_label(row['arm']),
            'score': wording.plus_minus(row['mean'], row['ci95'], one['metric']),
            'metric': one['metric'].rpartition('_')[2],
            'delta': wording.plus_minus(
                row['delta_mean'], row['delta_ci95'], one['metric'], signed=True
            )
            if row['verdict'] not in wording.UNJUDGED
            else '',
            'verdict': row['verdict'] if row['verdict'] not in wording.UNJUDGED else '',
            'mark': wording.MARKS[row['verdict']],
        }
        for task, one in found.get('verdicts', {}).items()
        for row in one['rows']
    ]
    changes = {
        wording.arm_label(arm): wording.plus_minus(*_mean_and_half(known), signed=True)
        for arm, values in found.get('relative_change', {}).items()
        if (known := [value for value in values if value is not None])
    }
    drawn = {'settings': by_setting(record.results)}
    for run in record.runs.values() if isinstance(record, Study) else [record]:
        for name, figure in affinities(run.results).items():
            drawn[f'{AFFINITIES[name]} of {wording.arm_label(run.results["name"])}'] = figure
    panels = [
        inline(figure, f'Tasks: {what}', f'tasks{i}')
        for i, (what, figure) in enumerate(drawn.items())
        if figure
    ]
    return {'lines': lines, 'changes': changes, 'panels': panels} if lines or panels else None


def _mean_and_half(values: Sequence[float]) -> tuple[float | None, float | None]:
    mean, _, half = verdict.interval(values)
    return mean, half


def affinities(results: Mapping) -> dict[str, Figure]:
    """By measure a heat map of what a run told of its tasks, the mean over members."""
    told, title = results.get('outcome', {}), wording.arm_label(results['name'])
    return {
        name: figures.affinity(
            array(told[name]).mean(axis=0), list(results['tasks']), f'{words} of {title}'
        )
        for name, words in AFFINITIES.items()
        if name in told and 'tasks' in results
    }


def by_setting(results: Mapping) -> Figure | None:
    """The tasks' accuracies over widths or shares of labels, where a study has such arms.

    The baseline is the arm at 100 %. A task's run alone is a level line, or where it has the same
    few labels, a line of its own.
    """
    if not (places := settings(results)):
        return None
    return _drawn(results['tasks']['verdicts'], *places)


def settings(results: Mapping) -> tuple[dict[str, float], str, str | None] | None:
    """Arm -> per cent, what of, and the task whose labels are made few; None of other studies."""
    if 'verdicts' not in results.get('tasks', {}):  # a run's are what it learns
        return None
    for title, pattern in _STUDIES.items():
        arms = {arm: match for arm in results['arms'] if (match := pattern.fullmatch(arm))}
        if arms:
            few = next(iter(arms.values())).groupdict().get('task')
            places = {arm: _per_cent(match) for arm, match in arms.items()}
            return places | {results['baseline']: 100.0}, title.format(few), few
    return None


def _drawn(found: Mapping, places: Mapping[str, float], axis: str, few: str | None) -> Figure:
    rows, looks = [], {}
    tasks = [task for task, one in found.items() if wording.in_per_cent(one['metric'])]
    for task, look in canvas.styles(tasks).items():
        alone = f'{task} alone'
        looks |= {task: look, alone: look._replace(line=(0, (1, 2)), marker='')}
        for row in found[task]['rows']:
            place = {axis: places[row['arm']]} if row['arm'] in places else {}
            if place:
                rows.append({'arm': task, 'mean': row['mean'], 'ci95': row['ci95']} | place)
            if place and task == few:
                mean = row['mean'] - row['delta_mean']
                rows.append({'arm': alone, 'mean': mean, 'ci95': None} | place)
            if row['arm'] == 'single' and task != few:
                rows.append({'arm': alone, 'mean': row['mean'], 'ci95': None})
    return figures.scores(sorted(rows, key=lambda row: row.get(axis, 0)), axis, looks)


def _per_cent(match: re.Match) -> float:
    found = match.groupdict()
    return float(found['per_cent']) if 'per_cent' in found else 100 / int(found['one_in'])
