"""The README's tables, as Markdown, from what `launch/results.py` keeps of runs and studies."""

import json
import re
import statistics
from pathlib import Path

# Study, or SOURCE,TARGET -> arm -> what was reported, and where.
PUBLISHED = Path(__file__).resolve().parents[1] / 'configs/results/published.json'
AXIS = 'labels_per_class'
# SOURCE,TARGET in the argument of configs/adapt.py, and what is behind them.
_PAIR = re.compile(r"configs/adapt\.py:[^ ,]+,([^ ,']+,[^ ,']+)([^ ']*)")
# Headings of the README and the configs whose studies stand below them.
TOPICS = {
    'Few labels: from scratch, frozen or fine-tuned': ('quickstart', 'transfer', 'finetune'),
    'Which layer and which source': ('layers', 'sources'),
    'Unsupervised adaptation': ('adapt', 'adapt_pretrained'),
    'Several tasks': ('multitask',),
    'One-shot recognition': ('one_shot',),
    'Zero-shot recognition': ('zero_shot', 'zero_shot_images'),
}


def glance(kept: dict[str, dict]) -> str:
    """Markdown: by topic, a row a study: its baseline, and the best of what is compared with it.

    Of a study of label counts the row of the fewest labels.
    """
    lines = _header('study', 'compared with', '', 'the best', '', 'difference')
    for topic in TOPICS:
        for study in sorted(kept.values(), key=lambda study: study['title']):
            if _topic(study) == topic and len(study['arms']) > 1:
                lines.append(_row(*_best(study)))
    return '\n'.join(lines)


def _best(study: dict) -> list[str]:
    least = min(row.get(AXIS, 0) for row in study['comparison'])
    rows = {row['arm']: row for row in study['comparison'] if row.get(AXIS, 0) == least}
    base = rows.pop(study['baseline'])
    rows.pop(study.get('ceiling'), None)
    best = max(rows.values(), key=lambda row: row['mean'])
    title = study['title'] + (f', {least} a class' if least else '')
    value, _, change = _cell(best, False).partition('<br>')
    names = (row['arm'].replace('_', '-') for row in (base, best))
    return [title, next(names), _cell(base, True), next(names), value, change]


def studies(kept: dict[str, dict]) -> str:
    """Markdown: by topic, the shortest study first, a table each."""
    lines = []
    for topic in (*TOPICS, ''):
        own = {name: study for name, study in kept.items() if _topic(study) == topic}
        lines += [f'### {topic}', ''] if own and topic else []
        for name in sorted(own, key=lambda name: own[name]['minutes']):
            lines += _study(name, own[name])
    return '\n'.join(lines)


def _topic(study: dict) -> str:
    config = re.search(r'configs/(\w+)\.py', study['command'])
    found = (topic for topic, configs in TOPICS.items() if config and config[1] in configs)
    return next(found, '')


def _study(name: str, study: dict) -> list[str]:
    """A table: by label counts where there are several, else by arms."""
    counts = list(dict.fromkeys(row.get(AXIS) for row in study['comparison']))
    return [
        f'**{study["title"]}**, {study["minutes"]:.0f} min{_place(study)}:',
        f'`{study["command"]}`',
        '',
        *([study['protocol'], ''] if 'protocol' in study else []),
        *_table(name, study, counts),
        '',
        *_affinities(study),
        *_flags([study]),
    ]


def _affinities(study: dict) -> list[str]:
    """Of each run that told them, the cosines of its tasks' gradients; and a blank."""
    lines = []
    for arm, found in study.get('affinity', {}).items():
        lines += _header(f'cosine of gradients, {arm.replace("_", "-")}', *found)
        lines += [_row(task, *(f'{x:.2f}' for x in row.values())) for task, row in found.items()]
        lines.append('')
    return lines


def _flags(kept: list[dict]) -> list[str]:
    """A line for each warning of a run, such as of a discriminator that collapsed; and a blank."""
    lines = [
        f'- {arm.replace("_", "-") or one["title"]}: {text}.'
        for one in kept
        for arm, texts in one.get('warnings', {}).items()
        for text in texts
    ]
    return [*lines, ''] if lines else []


def _place(study: dict) -> str:
    """' on 2 CPU cores', as far as it is known."""
    found = study.get('environment', {})
    if found.get('device') != 'cpu':
        return f' on {found["devices"]} x {found["device"]}' if found else ''
    cores = found.get('cores', 0)
    return f' on {cores} CPU core{"s" * (cores > 1)}' if cores else ' on a CPU'


def _table(name: str, study: dict, counts: list) -> list[str]:
    if study.get('tasks'):
        return _by_task(name, study)
    return _by_count(study, counts) if len(counts) > 1 else _by_arm(name, study)


def _by_task(name: str, study: dict) -> list[str]:
    """A row an arm, a column a task, beside the run that learns it alone, and Delta_m."""
    found, reported = study['tasks']['verdicts'], _published(name, study)
    titles = [one['metric'].replace('_', ' ') for one in found.values()]
    lines = _header('', *titles, 'Δm, %', *(['published'] if reported else []))
    for arm in ('single', *study['arms']):
        rows = [next(row for row in one['rows'] if row['arm'] == arm) for one in found.values()]
        cells = [
            _cell(row, arm == 'single', 1 if one['metric'].endswith('rmse') else 100)
            for row, one in zip(rows, found.values(), strict=True)
        ]
        change = study['tasks']['relative_change'].get(arm)
        mean = f'{100 * sum(change) / len(change):+.2f}' if change else ''
        beside = [reported.get(arm, '')] if reported else []
        lines.append(_row(arm.replace('_', '-'), *cells, mean, *beside))
    return lines


def _by_count(study: dict, counts: list) -> list[str]:
    """A row a label count, a column an arm."""
    arms = study['arms']
    lines = _header('labels per class', *(arm.replace('_', '-') for arm in arms))
    for count in counts:
        rows = {row['arm']: row for row in study['comparison'] if row[AXIS] == count}
        cells = [_cell(rows[arm], arm == study['baseline']) for arm in arms]
        lines.append(_row(count, *cells))
    return lines


def _by_arm(name: str, study: dict) -> list[str]:
    """A row an arm; columns: the last step, that selected without target labels, that with them,
    other scores, and what was published. Other selections are in the report and in what is kept.
    """
    shown = ('last', study.get('selection'), 'oracle')
    selections = {k: rows for k, rows in study.get('selections', {}).items() if k in shown}
    selections = selections or {'accuracy': study['comparison']}
    reported = _published(name, study)
    also = study.get('also', {})
    titles = [_words(column) for column in (*selections, *also)]
    lines = _header('', *titles, 'seeds', *(['published'] if reported else []))
    for arm in study['arms']:
        rows = [one for table in selections.values() for one in table if one['arm'] == arm]
        plain = arm in (study['baseline'], study.get('ceiling'))
        cells = [_cell(row, plain) for row in rows]
        cells += [_cell(row, True) for table in also.values() for row in table if row['arm'] == arm]
        beside = [reported.get(arm, '')] if reported else []
        lines.append(_row(arm.replace('_', '-'), *cells, rows[0]['n'], *beside))
    return lines


def _published(name: str, study: dict) -> dict[str, str]:
    """Arm -> what was reported of it: for the pair that the study adapts, or a study of this name.

    Behind it stands by how much our reported number falls short of one of the same protocol.
    """
    known = json.loads(PUBLISHED.read_text())
    pair = _PAIR.search(study['command'])
    if pair and 'only=' in pair[2]:
        return {}  # of a target without some classes nothing was
    reported = known.get(pair[1] if pair else name, {})
    sampled = bool(pair) and 'sampled' in pair[2]
    ours = {row['arm']: row['mean'] for row in study['comparison']}
    return {
        arm: text + (_short(ours.get(arm, 1.0), text) if ('sampled' in text) == sampled else '')
        for arm, text in reported.items()
        if arm in (*study['arms'], 'single')
    }


def _short(ours: float, text: str) -> str:
    """'<br>-1.9' where ours is that much below the one number of a text, else ''."""
    number = re.match(r'(\d+\.\d+) \(', text)
    below = round(round(100 * ours, 1) - float(number[1]), 1) if number else 0
    return f'<br>{below:.1f}' if below < 0 else ''


def _words(selection: str) -> str:
    words = selection.replace('_', ' ')
    return {'last': 'last step', 'oracle': 'oracle step (target labels)'}.get(selection, words)


def _header(*titles: str) -> list[str]:
    return [_row(*titles), '|---' * len(titles) + '|']


def _row(*cells) -> str:
    return '| ' + ' | '.join(map(str, cells)) + ' |'


def _cell(row: dict, plain: bool, scale: int = 100) -> str:
    digits = 1 if scale == 100 else 3
    text = f'{scale * row["mean"]:.{digits}f}'
    if row['std'] is not None:  # one member has no spread
        text += f' ± {scale * row["std"]:.{digits}f}'
    if plain:
        return text
    change = f'{scale * row["delta_mean"]:+.{digits}f}'
    if row['delta_ci95'] is not None:
        change += f' ± {scale * row["delta_ci95"]:.{digits}f}'
    return f'{text}<br>{change}: {row["verdict"]}'


def runs(kept: list[dict]) -> str:
    """Markdown: a row a single run."""
    lines = ['| run | accuracy | seeds | command |', '|---|---|---|---|']
    for run in kept:
        cells = []
        for row in run['summary']:
            stream = row.get('stream', 'test')
            where = '' if stream == 'test' else f'{stream} '
            cells.append(f'{where}{100 * row["mean"]:.1f} ± {100 * row["std"]:.1f}')
        cell, seeds = '<br>'.join(cells), run['summary'][0]['n']
        lines.append(f'| {run["title"]} | {cell} | {seeds} | `{run["command"]}` |')
    flags = _flags(kept)
    return '\n'.join([*lines, '', *flags[:-1]] if flags else lines)


def speed(benchmark: dict) -> str:
    """Markdown: a row a case of the benchmark."""
    lines = [
        '| case | cores | tljax, ms | beside it | its ms | ratio | half of the rounds within |',
        '|---' * 7 + '|',
    ]
    for row in benchmark['rows']:
        low, high = row['spread']
        ours, theirs = (f'{row[key]:,.1f}' for key in ('ours_ms', 'theirs_ms'))
        cells = row['case'], str(row['cores']), ours, row['against'], theirs, f'{row["ratio"]:.2f}'
        lines.append(f'| {" | ".join(cells)} | {low:.2f} to {high:.2f} |')
    held = [
        f'{row["case"]} {row["memory_mib"]["ours"]:.0f} / {row["memory_mib"]["theirs"]:.0f}'
        for row in benchmark['rows']
        if 'memory_mib' in row
    ]
    if held:
        lines += ['', 'The most memory of a process while it steps, above what it holds after its']
        lines += [f'imports, ours / theirs in MiB: {", ".join(held)}.']
    versions = {k: v for k, v in benchmark['machine'].items() if k not in ('cores', 'processor')}
    return '\n'.join([*lines, '', ', '.join(' '.join(pair) for pair in versions.items()) + '.'])


def ranking(found: dict) -> str:
    """Markdown: a row a source, the best first, and Kendall's tau of every score."""
    scores = list(found['kendall_tau'])
    lines = _header('source', *(_words(score) for score in scores), 'fine-tuned')
    for name in sorted(found['reached'], key=lambda name: -found['reached'][name]):
        means = [statistics.mean(found['scores'][name][score]) for score in scores]
        cells = [f'{mean:.3f}' for mean in means]
        lines.append(_row(name, *cells, f'{100 * found["reached"][name]:.1f}'))
    tau = [f'{found["kendall_tau"][score]:+.2f}' for score in scores]
    return '\n'.join([*lines, _row("Kendall's tau", *tau, '')])
