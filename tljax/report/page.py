"""What a report shows, in the order of the page: `build` makes the template's variables."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tljax import verdict, wording
from tljax.report import canvas, facts, panels, selections, task_panels
from tljax.report.headline import headline
from tljax.report.panels import Question, chip
from tljax.report.records import Run, Study
from tljax.wording import Row

_LABELS = 'labels_per_class'


def build(record: Run | Study) -> dict[str, Any]:
    """Collects the template's variables."""
    question, results = ask(record), record.results
    name = results.get('name') or record.path.name
    winner = best_at_most(question)
    return {
        'title': results.get('title') or wording.capital(wording.arm_label(name)),
        'kind': 'study' if isinstance(record, Study) else results.get('method', 'run'),
        'description': results.get('description', ''),
        **(_scores if isinstance(record, Run) else _verdicts)(record, question, winner),
        'legend': [chip(arm, look) for arm, look in question.looks.items()],
        'metric': question.metric.replace('_', ' '),
        'stream': question.stream,
        'per_cent': wording.in_per_cent(question.metric),
        'baseline': wording.arm_label(question.baseline),
        'facets': panels.key_figures(question),
        'ceiling': wording.arm_label(results.get('ceiling') or ''),
        'table': _table(question),
        'selections': selections.section(record, question),
        'also': selections.also(results, question),
        'collapse': collapsed(record),
        'curves': panels.learning_curves(question),
        'choices': panels.choices(question),
        'confusion': panels.confusions(question, winner),
        'features': panels.features(question),
        'tasks': task_panels.section(record),
        'pictures': panels.pictures(record),
        'facts': facts.of_record(record),
        'command': results.get('command', ''),
        'runs': [facts.of_run(arm, run, question.looks.get(arm)) for arm, run in _runs(record)],
        'config': facts.pretty(record.config),
    }


def ask(record: Run | Study) -> Question:
    """Finds what is compared, by which score, and the rows that come of it."""
    results, arms = record.results, dict(_runs(record))
    if isinstance(record, Study):
        baseline, arms = results['baseline'], {arm: arms[arm] for arm in results['arms']}
        stream, metric = results.get('stream', 'test'), results.get('metric', 'accuracy')
        lower = bool(results.get('lower_is_better', False))
        found = {arm: run.results for arm, run in arms.items()}
        rows = results.get('comparison') or verdict.compare(
            found,
            baseline,
            stream,
            metric,
            lower_is_better=lower,
            ceiling=results.get('ceiling', ''),
        )
    else:
        baseline, name = '', next(iter(arms))
        stream, metric, known = _score_of(results)
        lower = bool(results.get('lower_is_better', metric.endswith('loss')))
        rows = verdict.summarise(name, results, stream, metric) if known else []
    axis, looks = main_axis(rows), canvas.styles(list(arms), baseline)
    return Question(arms, rows, stream, metric, lower, baseline, axis, looks)


def collapsed(record: Run | Study) -> list[str]:
    """What the runs warn of, each sentence with the arm that it is about."""
    if isinstance(record, Run):
        return [wording.capital(text) for text in record.results.get('warnings', ())]
    return [
        f'{wording.capital(wording.arm_label(arm))}: {text}'
        for arm, run in record.runs.items()
        for text in run.results.get('warnings', ())
    ]


def main_axis(rows: Sequence[Row]) -> str | None:
    """Picks the horizontal axis: labels per class, else the numeric axis of the most values."""
    values = {
        axis: list({wording.freeze(row[axis]): row[axis] for row in rows if axis in row}.values())
        for axis in wording.axes_of(rows)
    }
    if len(values.get(_LABELS, ())) > 1:
        return _LABELS
    number = lambda value: isinstance(value, int | float) and math.isfinite(value)
    sizes = {axis: len(seen) for axis, seen in values.items() if all(map(number, seen))}
    return max((axis for axis in sizes if sizes[axis] > 1), key=sizes.get, default=None)


def best_at_most(question: Question) -> Row | None:
    """Returns the best row where labels are most plentiful; on any other axis the best of all."""
    rows, axis = question.rows, _LABELS
    counts = [row[axis] for row in rows if isinstance(row.get(axis), int | float)]
    most = max(counts, default=None)
    candidates = [row for row in rows if row.get(axis, most) == most]
    return wording.best(candidates, lower_is_better=question.lower_is_better)


def _runs(record: Run | Study) -> list[tuple[str, Run]]:
    if isinstance(record, Study):
        return list(record.runs.items())
    return [(record.results.get('name') or record.path.name, record)]


def _score_of(results: Mapping) -> tuple[str, str, bool]:
    """(stream, metric, whether there is such a score): accuracy on test where it exists."""
    scores = results['scores']
    streams = sorted(scores, key=lambda stream: stream != 'test')
    for stream in streams:
        names = facts.scalar_scores(scores[stream], len(results['members']))
        if names:
            return stream, 'accuracy' if 'accuracy' in names else names[0], True
    return (streams or ['test'])[0], 'accuracy', False


def _verdicts(record: Study, question: Question, winner: Row | None) -> dict[str, Any]:
    """The opening of a study: does transfer help?"""
    rows, metric = question.rows, question.metric
    if not question.baseline:
        return {'headline': _span(question), 'sentences': [], 'warnings': [], 'tiles': []}
    words = headline(rows, metric, lower_is_better=question.lower_is_better)
    others = [{**chip(arm, question.looks[arm]), 'text': text} for arm, text in words.others]
    tiles = facts.verdict_tiles(rows, metric)
    if winner:
        tiles.insert(0, _best_tile(question, winner, wording.arm_label(winner['arm'])))
    return {
        **{'headline': words.title, 'sentences': others, 'warnings': words.warnings},
        'tiles': tiles,
    }


def _span(question: Question) -> str:
    """The headline of a study without a baseline: between which scores its arms are."""
    means = sorted(row['mean'] for row in question.rows if row['mean'] is not None)
    ends = [wording.amount(mean, question.metric) for mean in (*means[:1], *means[1:][-1:])]
    unit = ' %' if wording.in_per_cent(question.metric) else ''
    found = f': {" to ".join(ends)}{unit} {question.score}' if ends else ''
    return f'{len(question.arms)} arms, each a test of its own{found}.'


def _scores(record: Run, question: Question, winner: Row | None) -> dict[str, Any]:
    """The opening of a single run: how good is it?"""
    rows, metric = question.rows, question.metric
    tiles, warnings = facts.run_tiles(record), []
    if winner:
        name = f'{question.stream} {metric.replace("_", " ")}'
        tiles.insert(0, _best_tile(question, winner, name))
    failed = sum(row['failed'] for row in rows)
    if failed:
        every = sum(row['n'] for row in rows) + failed
        warnings = [f'{failed} of {every} members have no finite {metric}.']
    title = _run_sentence(question, winner)
    return {'headline': title, 'sentences': [], 'warnings': warnings, 'tiles': tiles}


def _run_sentence(question: Question, winner: Row | None) -> str:
    """The headline of a single run: its score, plainly."""
    name = wording.capital(wording.arm_label(next(iter(question.arms))))
    if not question.rows:
        return f'{name} was trained; nothing was evaluated.'
    if winner is None:
        return f'{name}: no setting has a finite {question.score} of all its members.'
    unit = ' %' if wording.in_per_cent(question.metric) else ''
    score = wording.plus_minus(winner['mean'], winner['ci95'], question.metric) + unit
    setting = wording.setting_label(wording.setting_of(winner))
    notes = [f'{winner["n"]} seeds'] if winner['n'] > 1 else []
    # The best of several is a choice made on these very scores: say so.
    rivals = [row for row in question.rows if row.get(_LABELS) == winner.get(_LABELS)]
    notes += [f'the best of {len(rivals)} settings'] if len(rivals) > 1 else []
    place = f' at {setting}' if setting else ''
    words = f'{name}: {score} {question.score}{place}'
    return f'{words} ({", ".join(notes)}).' if notes else f'{words}.'


def _best_tile(question: Question, winner: Row, name: str) -> dict[str, str]:
    unit = ' %' if wording.in_per_cent(question.metric) else ''
    score = wording.plus_minus(winner['mean'], winner['ci95'], question.metric) + unit
    setting = wording.setting_label(wording.setting_of(winner))
    return {'value': score, 'label': ', '.join(filter(None, [name, setting])), 'tone': ''}


def _table(question: Question) -> dict[str, Any]:
    """One line per setting, one cell per arm."""
    axes, lines = wording.axes_of(question.rows), []
    for setting, group in _lines(question.rows):
        winner = wording.best(group, lower_is_better=question.lower_is_better)
        found = {row['arm']: row for row in group}
        cells = [
            _cell(found[arm], question.metric, found[arm] is winner and len(group) > 1)
            if arm in found
            else None
            for arm in question.looks
        ]
        values = [facts.plain(setting.get(axis)) for axis in axes]
        lines.append({'setting': values, 'cells': cells})
    return {
        'axes': [wording.axis_label(axis) for axis in axes],
        'lines': lines,
        'judged': sum(row['verdict'] in ('helps', 'hurts', 'neutral') for row in question.rows),
        'single': len(question.rows) < 2 and not question.baseline,
    }


def _lines(rows: Sequence[Row]) -> list[tuple[dict[str, Any], list[Row]]]:
    """Settings with their rows; a row without an axis stands in the line of each of its values."""
    settings = [wording.setting_of(group[0]) for group in wording.by_setting(rows).values()]
    full = [one for one in settings if not any(one.items() < other.items() for other in settings)]
    return [
        (setting, [row for row in rows if wording.setting_of(row).items() <= setting.items()])
        for setting in full
    ]


def _cell(row: Row, metric: str, star: bool) -> dict[str, Any]:
    compared, gap = row['verdict'] not in wording.UNJUDGED, row.get('gap_mean')
    delta = wording.plus_minus(row['delta_mean'], row['delta_ci95'], metric, signed=True)
    failed = f'{row["failed"]} of {row["failed"] + row["n"]} failed' if row['failed'] else ''
    score = wording.plus_minus(row['mean'], row['ci95'], metric)
    return {
        'score': 'NaN' if row['mean'] is None else score,
        'delta': delta if compared and row['delta_mean'] is not None else '',
        'gap': '' if gap is None else wording.plus_minus(gap, row['gap_ci95'], metric),
        'verdict': row['verdict'] if compared else '',
        'mark': wording.MARKS[row['verdict']],
        'note': row['reason'] or failed,
        'failed': bool(row['failed']),
        'star': star,
    }
