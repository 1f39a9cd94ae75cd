"""The README's tables of studies of several tasks."""

import statistics

from launch.results_cells import cell, header, number, published, row_of
from tljax.report import task_panels


def by_task(name: str, study: dict) -> list[str]:
    """A row an arm, a column a task, beside the run that learns it alone, and Delta_m."""
    found, reported = study['tasks']['verdicts'], published(name, study)
    titles = [one['metric'].replace('_', ' ') for one in found.values()]
    sizes = study['tasks'].get('parameters', {})
    behind = ['Δm, %', *(['parameters'] if sizes else []), *(['published'] if reported else [])]
    lines = header('', *titles, *behind)
    for arm in ('single', *study['arms']):
        rows = [next(row for row in one['rows'] if row['arm'] == arm) for one in found.values()]
        cells = [
            cell(row, arm == 'single', _scale(one['metric']))
            for row, one in zip(rows, found.values(), strict=True)
        ]
        change = mean_change(study['tasks']['relative_change'].get(arm, []))
        cells.append('' if change is None else f'{change:+.2f}')
        cells += [f'{sizes[arm]:,}'] if sizes else []
        lines.append(
            row_of(arm.replace('_', '-'), *cells, *([reported.get(arm, '')] * bool(reported)))
        )
    return lines


def _scale(metric: str) -> int:
    return 1 if metric.endswith('rmse') else 100


def best(study: dict) -> list[str]:
    """The runs that learn one task each, and the arm of the largest Delta_m."""
    found = study['tasks']['verdicts'].values()
    rows = [{row['arm']: row for row in one['rows']} for one in found]
    scales = [_scale(one['metric']) for one in found]
    means = lambda arm: ' / '.join(
        number(row[arm]['mean'], scale) for row, scale in zip(rows, scales, strict=True)
    )
    changes = {
        arm: mean_change(values) for arm, values in study['tasks']['relative_change'].items()
    }
    best = max((arm for arm in changes if changes[arm] is not None), key=changes.get, default='')
    if not best:
        return [study['title'], 'single', means('single'), '', '', '']
    change = f'Δm {changes[best]:+.2f} %'
    return [study['title'], 'single', means('single'), best.replace('_', '-'), means(best), change]


def mean_change(values: list) -> float | None:
    """The mean of Delta_m over the members that have one, in per cent."""
    known = [value for value in values if value is not None]
    return 100 * statistics.mean(known) if known else None


def drawn(name: str, study: dict) -> list[str]:
    """The figure of a study of settings, and a blank."""
    if not task_panels.settings(study):
        return []
    return [f'![Accuracy of each task by setting](configs/results/{name}.png)', '']


def affinities(name: str, study: dict) -> list[str]:
    """Of each run that told them, how its tasks bear on each other; and a blank.

    Rows are the task that is stepped for, columns the one that it bears on.
    """
    lines = []
    for arm, measures in study.get('affinity', {}).items():
        for measure, found in measures.items():
            digits = 2 if measure == 'cosine' else 4
            lines += header(f'{task_panels.AFFINITIES[measure]}, {arm.replace("_", "-")}', *found)
            for task, row in found.items():
                lines.append(row_of(task, *(f'{x:.{digits}f}' for x in row.values())))
            place = f'configs/results/{name}_{arm}_{measure}.png'
            lines += ['', f'![{task_panels.AFFINITIES[measure]}]({place})', '']
    return lines
