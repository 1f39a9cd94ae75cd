"""Renders report.html from a run or study directory: one file, no external requests.

`write` is the entry; `page` builds everything the template shows, in the order of the page.
"""

import base64
import importlib.resources
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from tljax import facts, figures, records, verdict, wording
from tljax.headline import headline
from tljax.records import Run, Study
from tljax.wording import Row

_MOST_PANELS = 6
_MOST_CELLS = 30  # classes up to which a confusion matrix is drawn
_MOST_FACETS = 4


def write(directory: str | Path) -> Path:
    """Writes `report.html` into a run or study directory and returns its path.

    The file is written beside its place and moved there, so a reader never sees half of it.

    Raises:
        FileNotFoundError: `results.json` of the directory or of one of its arms is missing.
        ValueError: it is broken; the message names the file.
    """
    html = render(records.load(directory))
    target = Path(directory) / 'report.html'
    draft = target.with_name(f'.{target.name}.{os.getpid()}.tmp')
    try:
        draft.write_text(html, encoding='utf-8')
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
    return target


def render(record: Run | Study) -> str:
    """Renders the page of a loaded run or study."""
    source = importlib.resources.files('tljax').joinpath('report.html.j2').read_text('utf-8')
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source).render(page(record))


def page(record: Run | Study) -> dict[str, Any]:
    """Collects what the template shows."""
    question = _question(record)
    arms, rows, metric = question['arms'], question['rows'], question['metric']
    looks = figures.styles(list(arms), question['baseline'])
    axis = main_axis(rows)
    winner = _winner(rows, axis, question['lower_is_better'])
    results = record.results
    return {
        'title': results.get('title') or wording.capital(wording.arm_label(results['name'])),
        'kind': 'study' if isinstance(record, Study) else results.get('method', 'run'),
        'description': results.get('description', ''),
        **_opening(record, question, axis, winner, looks),
        'legend': [_chip(arm, look) for arm, look in looks.items()],
        'metric': metric.replace('_', ' '),
        'stream': question['stream'],
        'per_cent': wording.in_per_cent(metric),
        'baseline': wording.arm_label(question['baseline'] or ''),
        'facets': _key_figures(question, axis, looks),
        'table': _table(question, looks),
        'curves': _curves(question, axis, looks),
        'confusion': _confusion(question, winner, looks),
        'pictures': _pictures(record),
        'facts': facts.of_record(record),
        'command': results.get('command', ''),
        'runs': [facts.of_run(name, run, looks.get(name)) for name, run in _runs(record).items()],
        'config': facts.pretty(record.config),
    }


def main_axis(rows: Sequence[Row]) -> str | None:
    """Picks the horizontal axis: labels per class, else the numeric axis of the most values."""
    values = {
        axis: list({wording.freeze(row[axis]): row[axis] for row in rows if axis in row}.values())
        for axis in wording.axes_of(rows)
    }
    several = {axis: seen for axis, seen in values.items() if len(seen) > 1}
    if 'labels_per_class' in several:
        return 'labels_per_class'
    numeric = lambda seen: all(isinstance(v, int | float) for v in seen)
    return max(filter(lambda a: numeric(several[a]), several), key=lambda a: len(several[a]), default=None)


def _runs(record: Run | Study) -> Mapping[str, Run]:
    return record.runs if isinstance(record, Study) else {record.results['name']: record}


def _question(record: Run | Study) -> dict[str, Any]:
    """What is compared: the arms, the score and its rows."""
    results = record.results
    if isinstance(record, Study):
        arms = {name: record.runs[name] for name in results['arms']}
        stream, metric = results.get('stream', 'test'), results.get('metric', 'accuracy')
        lower, baseline = results.get('lower_is_better', False), results['baseline']
        rows = results.get('comparison') or verdict.compare(
            {name: run.results for name, run in arms.items()},
            *(baseline, stream, metric),
            lower_is_better=lower,
        )
    else:
        arms, baseline = {results['name']: record}, None
        stream, metric = _score_of(results)
        lower = results.get('lower_is_better', not wording.in_per_cent(metric) and 'loss' in metric)
        rows = verdict.summarise(results['name'], results, stream, metric)
    return {
        **{'arms': arms, 'rows': rows, 'stream': stream, 'metric': metric},
        **{'lower_is_better': lower, 'baseline': baseline},
    }


def _score_of(results: Mapping) -> tuple[str, str]:
    # What a single run is judged by: accuracy on test where there is such a thing.
    scores = results['scores']
    stream = 'test' if 'test' in scores else next(iter(scores))
    scalar = [
        name
        for name, values in scores[stream].items()
        if isinstance(values, list) and not any(isinstance(value, list) for value in values)
    ]
    if not scalar:
        raise ValueError(f'{results["name"]}: no score of {stream!r} has one number per member.')
    return stream, 'accuracy' if 'accuracy' in scalar else scalar[0]


def _winner(rows: Sequence[Row], axis: str | None, lower_is_better: bool) -> Row | None:
    # The best arm where there is the most of what the axis counts, usually labels.
    numbers = [row[axis] for row in rows if axis in row and isinstance(row[axis], int | float)]
    last = max(numbers, default=None)
    candidates = [row for row in rows if not numbers or row.get(axis, last) == last]
    return wording.best(candidates, lower_is_better=lower_is_better)


def _chip(arm: str, look: figures.Style) -> dict[str, str]:
    return {'label': wording.arm_label(arm), 'colour': look.variable, 'glyph': look.glyph}


def _opening(record, question, axis, winner, looks) -> dict[str, Any]:
    """The sentence on top, one more per arm, the warnings and the tiles."""
    rows, metric, lower = question['rows'], question['metric'], question['lower_is_better']
    unit = ' %' if wording.in_per_cent(metric) else ''
    tiles = []
    if winner:
        setting = wording.setting_label(wording.setting_of(winner))
        score = wording.plus_minus(winner['mean'], winner['ci95'], metric) + unit
        arm = wording.arm_label(winner['arm']) if len(looks) > 1 else question['stream'] + ' ' + metric
        tiles.append({'value': score, 'label': ', '.join(filter(None, [arm, setting])), 'tone': ''})
    if not isinstance(record, Study):
        facts_ = facts.tiles(record)
        failed = sum(row['failed'] for row in rows)
        title = facts.run_sentence(record, winner, question['stream'], metric)
        warnings = [f'{failed} of {sum(r["n"] for r in rows) + failed} members failed.'] * (failed > 0)
        return {'headline': title, 'sentences': [], 'warnings': warnings, 'tiles': tiles + facts_}
    words = headline(rows, metric, lower_is_better=lower)
    sentences = [{**_chip(arm, looks[arm]), 'text': text} for arm, text in words.others]
    tiles += facts.verdict_tiles(rows, metric, lower)
    return {
        **{'headline': words.title, 'sentences': sentences, 'warnings': words.warnings},
        'tiles': tiles,
    }


def _key_figures(question, axis, looks) -> list[dict[str, Any]]:
    """The score against the main axis and the difference to the baseline, per other setting."""
    rows, metric = question['rows'], question['metric']
    lower = question['lower_is_better']
    sections = []
    for i, (title, own) in enumerate(_facets(rows, axis)):
        if axis:
            figure = figures.scores(own, axis, looks, metric, legend=False)
        else:
            figure = figures.dots(own, looks, metric)
        alt = f'{question["stream"]} {metric} with 95 % intervals. {_in_words(own, metric)}'
        svgs = [{'svg': _svg(figure, alt, f'score{i}'), 'caption': _score_caption(question, axis)}]
        if question['baseline'] and any(row['delta_mean'] is not None for row in own):
            others = {arm: look for arm, look in looks.items() if arm != question['baseline']}
            compared = [row for row in own if row['arm'] in others]
            figure = figures.gains(compared, axis, others, metric, lower_is_better=lower)
            name = wording.arm_label(question['baseline'])
            svgs.append({
                'svg': _svg(figure, f'Differences to {name} with 95 % intervals', f'gain{i}'),
                'caption': f'Paired difference to {name}, with its 95 % interval. '
                'Filled marks: the interval excludes zero.',
            })
        sections.append({'title': title, 'figures': svgs})
    return sections


def _score_caption(question, axis) -> str:
    against = f' against {wording.axis_label(axis)}' if axis else ''
    spread = 'Bands' if axis else 'Bars'
    name = f'{question["stream"]} {question["metric"].replace("_", " ")}'
    return f'{wording.capital(name)}{against}. {spread}: 95 % interval of the mean over seeds.'


def _facets(rows: Sequence[Row], axis: str | None) -> list[tuple[str, list[Row]]]:
    """Splits rows by the axes that the figure does not show; rows without them are in all."""
    if axis is None:
        return [('', list(rows))]
    rest = lambda row: {k: v for k, v in wording.setting_of(row).items() if k != axis}
    full = max((len(rest(row)) for row in rows), default=0)
    keys = {wording.freeze(rest(row)): rest(row) for row in rows if len(rest(row)) == full}
    if len(keys) < 2:
        return [('', list(rows))]
    return [
        (wording.setting_label(key), [row for row in rows if rest(row).items() <= key.items()])
        for key in list(keys.values())[:_MOST_FACETS]
    ]


def _in_words(rows: Sequence[Row], metric: str) -> str:
    parts = [
        f'{wording.arm_label(row["arm"])} {wording.setting_label(wording.setting_of(row))}: '
        f'{wording.amount(row["mean"], metric)}'
        for row in rows[:24]
    ]
    return '; '.join(parts)


def _svg(figure, alt: str, key: str) -> Markup:
    return Markup(figures.to_svg(figure, alt, key))  # noqa: S704 (to_svg escapes its texts)


def _table(question, looks) -> dict[str, Any]:
    """One line per setting, one cell per arm."""
    metric, baseline = question['metric'], question['baseline']
    lines = []
    for group in wording.by_setting(question['rows']).values():
        winner = wording.best(group, lower_is_better=question['lower_is_better'])
        found = {row['arm']: row for row in group}
        cells = [
            _cell(found[arm], metric, found[arm] is winner and len(group) > 1)
            if arm in found
            else None
            for arm in looks
        ]
        lines.append({'setting': facts.values_of(wording.setting_of(group[0])), 'cells': cells})
    axes = wording.axes_of(question['rows'])
    for line in lines:
        line['setting'] = [line['setting'].get(axis, '–') for axis in axes]
    judged = [row for row in question['rows'] if row['verdict'] in ('helps', 'hurts', 'neutral')]
    return {
        **{'axes': [wording.axis_label(axis) for axis in axes], 'lines': lines},
        **{'judged': len(judged), 'compared': bool(baseline)},
    }


def _cell(row: Row, metric: str, star: bool) -> dict[str, Any]:
    compared = row['verdict'] not in ('baseline', None)
    delta = wording.plus_minus(row['delta_mean'], row['delta_ci95'], metric, signed=True)
    return {
        'score': 'NaN' if row['mean'] is None else wording.plus_minus(row['mean'], row['ci95'], metric),
        'delta': delta if compared and row['delta_mean'] is not None else '',
        'verdict': row['verdict'] if compared else '',
        'mark': wording.MARKS[row['verdict']],
        'note': row['reason'] or '',
        'failed': f'{row["failed"]} of {row["failed"] + row["n"]} failed' if row['failed'] else '',
        'star': star,
    }


def _curves(question, axis, looks) -> dict[str, Any] | None:
    """One panel per value of the main axis, with the arms in it."""
    values = {}
    for row in question['rows']:
        if axis in row:
            values[wording.freeze(row[axis])] = row[axis]
    shown = list(values.values())
    if len(shown) > _MOST_PANELS:
        picks = np.linspace(0, len(shown) - 1, _MOST_PANELS).round().astype(int)
        shown = [shown[i] for i in dict.fromkeys(picks)]
    stream, metric = question['stream'], question['metric']
    panels = []
    for value in shown or [None]:
        series = {
            arm: points
            for arm, run in question['arms'].items()
            if (points := facts.series(run, stream, metric, axis, value)) is not None
        }
        if series:
            panels.append((wording.value_label(axis, value) if shown else '', series))
    training = facts.training_series(question) if len(question['arms']) == 1 else []
    if not panels and not training:
        return None
    stacked = [points[1].ravel() for _, series in panels for points in series.values()]
    finite = np.concatenate(stacked) if stacked else np.array([])
    finite = finite[np.isfinite(finite)]
    margin = 0.04 * (np.ptp(finite) or 0.5) if finite.size else 0
    limits = (finite.min() - margin, finite.max() + margin) if finite.size else None
    marks = facts.phases(next(iter(question['arms'].values()))) if len(looks) == 1 else {}
    svgs = []
    for i, (title, series) in enumerate(panels):
        figure = figures.curves(series, looks, metric, title=title, limits=limits, marks=marks)
        alt = f'{stream} {metric} against step {title}'
        svgs.append(_svg(figure, alt, f'curve{i}'))
    for i, (name, points) in enumerate(training):
        figure = figures.curves({next(iter(looks)): points}, looks, name, title=f'training {name}', marks=marks)
        svgs.append(_svg(figure, f'training {name} against step', f'train{i}'))
    left_out = len(values) - len(shown)
    note = f' {left_out} of {len(values)} settings are not shown.' if left_out else ''
    return {'panels': svgs, 'caption': f'Mean over members; bands from the lowest to the highest.{note}'}


def _confusion(question, winner, looks) -> dict[str, Any] | None:
    """The winner's confusions, summed over its members: a matrix, or its largest entries."""
    if winner is None:
        return None
    run = question['arms'][winner['arm']]
    score = run.results['scores'].get(question['stream'], {})
    if not score.get('confusion'):
        return None
    wanted = wording.setting_of(winner)
    chosen = [
        records.array(counts)
        for member, counts in zip(run.results['members'], score['confusion'], strict=True)
        if all(member.get(axis, value) == value for axis, value in wanted.items())
    ]
    counts = np.nansum(chosen, axis=0)
    classes = facts.class_names(run, len(counts))
    look = looks[winner['arm']]
    setting = wording.setting_label(wanted)
    svg = None
    if len(counts) <= _MOST_CELLS:
        colour = look.colour if look.colour != figures.BASELINE else figures.ARM_COLOURS[0]
        figure = figures.confusion(counts, classes, colour)
        svg = _svg(figure, f'Confusion matrix of {wording.arm_label(winner["arm"])}', 'confusion')
    return {
        **_chip(winner['arm'], look),
        **{'setting': setting, 'members': len(chosen), 'svg': svg, 'classes': len(counts)},
        'pairs': facts.confused_pairs(counts, classes),
    }


def _pictures(record: Run | Study) -> list[dict[str, str]]:
    """Pictures that a method left in `figures/`, with their captions."""
    places = {'': record.path} if isinstance(record, Run) else {
        '': record.path, **{name: run.path for name, run in record.runs.items()}}
    pictures = []
    for name, path in places.items():
        for file in sorted((path / 'figures').glob('*.png')):
            note = file.with_suffix('.txt')
            caption = note.read_text('utf-8', 'replace').strip() if note.exists() else ''
            caption = caption or wording.arm_label(file.stem)
            data = base64.b64encode(file.read_bytes()).decode()
            pictures.append({
                'src': f'data:image/png;base64,{data}',
                'caption': f'{wording.arm_label(name)}: {caption}' if name else caption,
            })
    return pictures
