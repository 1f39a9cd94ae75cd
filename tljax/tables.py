"""The rows of comparisons as tables for the terminal."""

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from tljax import wording
from tljax.wording import Row

_COLOURS = {'helps': 'green', 'hurts': 'bold red', 'neutral': 'dim', 'unclear': 'yellow'}


def verdicts(
    rows: Sequence[Row], metric: str = 'accuracy', *, lower_is_better: bool = False
) -> Table:
    """Lays rows out for the terminal: mean ± 95 %, difference and verdict; ★ marks the best arm."""
    axes = wording.axes_of(rows)
    unit = ' %' if wording.in_per_cent(metric) else ''
    baseline = next((row['arm'] for row in rows if row['verdict'] == 'baseline'), 'baseline')
    ceiling = any(row['verdict'] == 'ceiling' for row in rows)
    judged = any(row['verdict'] for row in rows)
    hurt = any(row['verdict'] == 'hurts' for row in rows)
    caption = 'mean ± 95 % interval over seeds' + ('; ▼ is negative transfer' if hurt else '')
    table = Table(caption=caption)
    for axis in axes:
        table.add_column(axis, justify='right')
    table.add_column('arm')
    table.add_column(f'{metric}{unit}', justify='right')
    table.add_column('n', justify='right')
    if judged:
        table.add_column(f'against {baseline}', justify='right')
        table.add_column('verdict')
    if ceiling:
        table.add_column('gap to the ceiling', justify='right')
    for group in wording.by_setting(rows).values():
        winner = wording.best(group, lower_is_better=lower_is_better)
        for row in group:
            star = ' ★' if row is winner and len(group) > 1 else ''
            cells = ['' if row.get(axis) is None else escape(str(row[axis])) for axis in axes]
            change = wording.plus_minus(row['delta_mean'], row['delta_ci95'], metric, signed=True)
            change = '' if row['verdict'] in wording.UNJUDGED else change
            table.add_row(
                *cells,
                f'[bold]{escape(row["arm"])}{star}[/]' if star else escape(row['arm']),
                wording.plus_minus(row['mean'], row['ci95'], metric),
                str(row['n']) + (f' [red]({row["failed"]} failed)[/]' if row['failed'] else ''),
                *([change, _coloured(row)] * judged),
                *([wording.plus_minus(row.get('gap_mean'), row.get('gap_ci95'), metric)] * ceiling),
                end_section=row is group[-1],
            )
    return table


def selections(columns: Mapping[str, Sequence[Row]], metric: str = 'accuracy') -> Table:
    """Lays the main selections out side by side: mean ± 95 % and the verdict's mark.

    Args:
      columns: as `selection.compare` gives them: the last step and a label-free one come first, the
        oracle last.
      metric: of the rows.
    """
    names = list(columns)
    columns = {name: columns[name] for name in (*names[:2], names[-1])}
    axes = wording.axes_of(columns[names[0]])
    unit = ' in %' if wording.in_per_cent(metric) else ''
    table = Table(caption=f'{metric}{unit} at the step that each selection chooses')
    for axis in axes:
        table.add_column(axis, justify='right')
    table.add_column('arm')
    for name in columns:
        table.add_column(wording.arm_label(name), justify='right')
    for rows in zip(*columns.values(), strict=True):
        cells = ['' if rows[0].get(axis) is None else escape(str(rows[0][axis])) for axis in axes]
        scores = [wording.plus_minus(row['mean'], row['ci95'], metric) for row in rows]
        marks = [wording.MARKS[row['verdict']] or ' ' for row in rows]
        marked = [f'{score} {mark}' for score, mark in zip(scores, marks, strict=True)]
        table.add_row(*cells, escape(rows[0]['arm']), *marked)
    return table


def _coloured(row: Row) -> str:
    word = row['verdict']
    if word not in _COLOURS:
        return word or ''
    note = f' ({escape(row["reason"])})' if row['reason'] else ''
    return f'[{_COLOURS[word]}]{wording.MARKS[word]} {word}{note}[/]'
