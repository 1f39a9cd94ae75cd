"""The sections of a report that hold pictures: which figures there are, with captions and alts."""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from tljax import wording
from tljax.report import canvas, facts, figures
from tljax.report.records import Run, Study, array
from tljax.wording import Row

_MOST_PANELS = 6
_MOST_PLANES = 12  # of features, a panel an arm
_MOST_FACETS = 4
_MOST_CLASSES = 30  # up to which a confusion matrix is drawn
_MOST_SPOKEN = 24  # numbers in an alt text
_OVER_MEMBERS = 'Mean over members; bands reach from the lowest to the highest.'


class Question(NamedTuple):
    """What a report compares, by which score, and how the arms look."""

    arms: Mapping[str, Run]
    rows: Sequence[Row]
    stream: str
    metric: str
    lower_is_better: bool
    baseline: str  # '' of a single run, or where arms are tests of their own
    axis: str | None  # the horizontal one
    looks: Mapping[str, canvas.Style]

    @property
    def score(self) -> str:
        """The score in words: 'test accuracy'."""
        return f'{self.stream} {self.metric.replace("_", " ")}'


def chip(arm: str, look: canvas.Style) -> dict[str, str]:
    """How the page's text names an arm: in its colour and with its marker."""
    return {'label': wording.arm_label(arm), 'colour': look.variable, 'glyph': look.glyph}


def key_figures(question: Question) -> list[dict[str, Any]]:
    """The score against the main axis and the difference to the baseline, per other setting."""
    if len(question.rows) < 2:
        return []
    sections = []
    for i, (title, rows) in enumerate(_facets(question.rows, question.axis)):
        shown = [_score_figure(question, rows, f'score{i}')]
        if question.baseline and any(row['delta_mean'] is not None for row in rows):
            shown.append(_gain_figure(question, rows, f'gain{i}'))
        sections.append({'title': title, 'figures': shown})
    return sections


def _score_figure(question: Question, rows: Sequence[Row], key: str) -> dict[str, Any]:
    axis, looks, metric = question.axis, question.looks, question.metric
    if axis:
        figure = figures.scores(rows, axis, looks, metric, legend=False)
    else:
        figure = figures.dots(rows, looks, metric)
    against = f' against {wording.axis_label(axis)}' if axis else ''
    kind = 'Bands' if axis else 'Bars'
    caption = f'{wording.capital(question.score)}{against}. {kind}: 95 % interval over seeds.'
    alt = f'{wording.capital(question.score)}{against}. {_spoken(rows, "mean", metric)}'
    return {'svg': inline(figure, alt, key), 'caption': caption}


def _gain_figure(question: Question, rows: Sequence[Row], key: str) -> dict[str, Any]:
    metric, base = question.metric, question.baseline
    looks = {arm: look for arm, look in question.looks.items() if arm != base}
    compared = [row for row in rows if row['arm'] != base]
    lower = question.lower_is_better
    figure = figures.gains(compared, question.axis, looks, metric, lower_is_better=lower)
    name = wording.arm_label(base)
    alt = f'Difference to {name}. {_spoken(compared, "delta_mean", metric)}'
    caption = f'Paired difference to {name} with its 95 % interval. Filled: it excludes zero.'
    return {'svg': inline(figure, alt, key), 'caption': caption}


def learning_curves(question: Question) -> dict[str, Any] | None:
    """One panel per value of the main axis, with all arms in it; a single run's losses too."""
    line = lambda run, axis, value: facts.series(run, question.stream, question.metric, axis, value)
    shown, note = _lines_by_setting(question, line)
    if all(max(steps) == 0 for _, lines in shown for steps, _ in lines.values()):
        return None  # nothing but closed forms
    limits = _limits([line for _, lines in shown for line in lines.values()])
    panels = [(title, question.metric, lines, limits) for title, lines in shown]
    marks = {}
    if len(question.arms) == 1:
        (arm, run), *_ = question.arms.items()
        marks = facts.phase_starts(run)
        losses = facts.training_losses(run)
        panels += [('training', name, {arm: line}, None) for name, line in losses]
    svgs = [
        inline(
            figures.curves(lines, question.looks, metric, title=title, limits=limits, marks=marks),
            *(f'{metric} against step, {title or question.score}', f'curve{i}'),
        )
        for i, (title, metric, lines, limits) in enumerate(panels)
    ]
    return {'panels': svgs, 'caption': _OVER_MEMBERS + note} if svgs else None


def choices(question: Question) -> dict[str, Any] | None:
    """Where strengths were chosen: the validation accuracy of each, a panel per main value."""
    shown, note = _lines_by_setting(question, facts.choice)
    limits = _limits([line for _, lines in shown for line in lines.values()])
    svgs = [
        inline(
            figures.curves(
                lines, question.looks, 'accuracy', title=title, limits=limits, over='strength'
            ),
            *(f'validation accuracy against strength, {title}', f'choice{i}'),
        )
        for i, (title, lines) in enumerate(shown)
    ]
    caption = f'Accuracy on held-out training examples. {_OVER_MEMBERS}{note}'
    return {'panels': svgs, 'caption': caption} if svgs else None


def _lines_by_setting(question: Question, line: Callable) -> tuple[list[tuple[str, dict]], str]:
    """`line(run, axis, value)` of all arms for each value of the main axis that is shown.

    Returns:
      pairs of a title and {arm: line}, and a note of what is left out.
    """
    axis = question.axis
    held = [row for row in question.rows if axis in row]
    values = list({wording.freeze(row[axis]): row[axis] for row in held}.values())
    spread = np.linspace(0, len(values) - 1, _MOST_PANELS).round().astype(int)
    shown = [values[i] for i in spread] if len(values) > _MOST_PANELS else values
    found = []
    for value in shown or [None]:
        lines = {arm: line(run, axis, value) for arm, run in question.arms.items()}
        lines = {arm: one for arm, one in lines.items() if one}
        title = wording.value_label(axis, value) if shown else ''
        found += [(title, lines)] if lines else []
    hidden = len(values) - len(shown)
    return found, f' {hidden} of {len(values)} settings are not shown.' if hidden else ''


def confusions(question: Question, winner: Row | None) -> dict[str, Any] | None:
    """The winner's confusions, summed over its members: a matrix, or its largest entries."""
    if winner is None:
        return None
    run, look = question.arms[winner['arm']], question.looks[winner['arm']]
    tables = run.results['scores'].get(question.stream, {}).get('confusion')
    if not tables or len(tables) != len(run.results['members']):
        return None
    wanted = wording.setting_of(winner)
    chosen = [
        array(table)
        for member, table in zip(run.results['members'], tables, strict=True)
        if table and all(member.get(axis, value) == value for axis, value in wanted.items())
    ]
    if not chosen:
        return None
    counts = np.nansum(chosen, axis=0)
    classes, svg = facts.class_names(run, len(counts)), None
    if len(counts) <= _MOST_CLASSES:
        alt = f'Confusion matrix of {wording.arm_label(winner["arm"])}; the diagonal is right.'
        svg = inline(figures.confusion(counts, classes, look.colour), alt, 'confusion')
    return {
        **chip(winner['arm'], look),
        **{'setting': wording.setting_label(wanted), 'members': len(chosen), 'svg': svg},
        **{'classes': len(counts), 'pairs': facts.confused_pairs(counts, classes)},
    }


def features(question: Question) -> dict[str, Any] | None:
    """Where the features of both domains lie, one panel an arm; a baseline is the 'before'."""
    files = {arm: run.path / 'figures' / 'features.npz' for arm, run in question.arms.items()}
    files, panels = {arm: file for arm, file in files.items() if file.exists()}, []
    for arm, file in list(files.items())[:_MOST_PLANES]:
        found, run = np.load(file), question.arms[arm]
        classes = facts.class_names(run, int(found['label'].max()) + 1)
        title = wording.arm_label(arm) if len(question.arms) > 1 else ''
        figure = figures.features(**found, classes=classes, title=title)
        alt = f'Features of {wording.arm_label(arm)} in the plane, by class and domain.'
        panels.append(inline(figure, alt, f'features{len(panels)}'))
    if not panels:
        return None
    caption = (
        't-SNE of the features of held-out images, each panel on its own; first member. Colours '
        'are classes, dots are the source and open triangles the target.'
    )
    if left := len(files) - len(panels):
        caption += f' {left} more arms are not drawn.'
    return {'panels': panels, 'caption': caption}


def pictures(record: Run | Study) -> list[dict[str, str]]:
    """Pictures that a method left in `figures/*.png`, each with its caption in a `*.txt`."""
    places = {'': record.path}
    if isinstance(record, Study):
        places |= {f'{wording.arm_label(arm)}: ': run.path for arm, run in record.runs.items()}
    found = []
    for prefix, path in places.items():
        for file in sorted((path / 'figures').glob('*.png')):
            note = file.with_suffix('.txt')
            text = note.read_text('utf-8', 'replace').strip() if note.exists() else ''
            data = base64.b64encode(file.read_bytes()).decode()
            found.append(
                {
                    'src': f'data:image/png;base64,{data}',
                    'caption': prefix + (text or wording.arm_label(file.stem)),
                }
            )
    return found


def _facets(rows: Sequence[Row], axis: str | None) -> list[tuple[str, list[Row]]]:
    """Splits rows by the axes that the figure does not show; rows without them are in all."""
    rest = lambda row: {k: v for k, v in wording.setting_of(row).items() if k != axis}
    most = max(len(rest(row)) for row in rows)
    keys = {wording.freeze(rest(row)): rest(row) for row in rows if len(rest(row)) == most}
    if axis is None or len(keys) < 2:
        return [('', list(rows))]
    return [
        (wording.setting_label(key), [row for row in rows if rest(row).items() <= key.items()])
        for key in list(keys.values())[:_MOST_FACETS]
    ]


def _limits(lines: Sequence[tuple]) -> tuple[float, float] | None:
    values = np.concatenate([np.ravel(values) for _, values in lines] or [np.array([])])
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    margin = 0.04 * (np.ptp(values) or 0.5)
    return values.min() - margin, values.max() + margin


def _spoken(rows: Sequence[Row], key: str, metric: str) -> str:
    parts = []
    for row in rows[:_MOST_SPOKEN]:
        setting = wording.setting_label(wording.setting_of(row))
        value = wording.amount(row[key], metric, signed=key != 'mean')
        parts.append(
            f'{wording.arm_label(row["arm"])}{f" at {setting}" if setting else ""}: {value}'
        )
    return '; '.join(parts) + '.'


def inline(figure: Figure, alt: str, key: str) -> Markup:
    return Markup(canvas.to_svg(figure, alt, key))  # to_svg escapes all text
