"""The README's tables, as Markdown, from what `launch/results.py` keeps of runs and studies."""

import re
import statistics

from launch import results_tasks
from launch.results_cells import cell, header, number, published, row_of, words
from tljax.wording import MARKS

AXIS = 'labels_per_class'
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
    lines = header('study', 'compared with', '', 'the best', '', 'difference')
    for topic in TOPICS:
        for study in sorted(kept.values(), key=lambda study: study['title']):
            if _topic(study) == topic and study['baseline'] and len(study['arms']) > 1:
                lines.append(row_of(*_best(study)))
    return '\n'.join(lines)


def _best(study: dict) -> list[str]:
    if study.get('tasks'):
        return results_tasks.best(study)
    title, base, rows = _fewest(study)
    best = max(rows, key=lambda row: row['mean'])
    value, _, change = cell(best, False).partition('<br>')
    names = (row['arm'].replace('_', '-') for row in (base, best))
    return [title, next(names), cell(base, True), next(names), value, change]


def _fewest(study: dict) -> tuple[str, dict, list[dict]]:
    """Title, the baseline's row and those of the arms that it judges, at the fewest labels."""
    least = min(row.get(AXIS) or 0 for row in study['comparison'])
    rows = {row['arm']: row for row in study['comparison'] if (row.get(AXIS) or 0) == least}
    base = rows.pop(study['baseline'])
    rows.pop(study.get('ceiling'), None)
    return study['title'] + (f', {least} a class' if least else ''), base, list(rows.values())


def methods(kept: dict[str, dict]) -> str:
    """Markdown: by topic, a row an arm: what it reached in each study, and the verdict's mark.

    Of several tasks there are tables of their own.
    """
    lines = header('method', 'accuracy, and against the baseline')
    for topic in TOPICS:
        found: dict[str, list[str]] = {}
        for study in sorted(kept.values(), key=lambda study: study['title']):
            if _topic(study) == topic and study['baseline'] and not study.get('tasks'):
                title, _, rows = _fewest(study)
                for row in rows:
                    text = f'{title} {number(row["mean"], 100)} {MARKS[row["verdict"]]}'
                    found.setdefault(row['arm'].replace('_', '-'), []).append(text)
        lines += [row_of(arm, '<br>'.join(texts)) for arm, texts in sorted(found.items())]
    return '\n'.join(lines)


def studies(kept: dict[str, dict]) -> str:
    """Markdown: by topic, the shortest study first, a table each."""
    lines = []
    for topic in (*TOPICS, ''):
        own = {name: study for name, study in kept.items() if _topic(study) == topic}
        if own and topic:
            hours = sum(study['minutes'] for study in own.values()) / 60
            lines += [f'### {topic}', '', f'In all {hours:.1f} hours of computing.', '']
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
        f'**{study["title"]}**, {max(1, study["minutes"]):.0f} min{_place(study)}:',
        f'`{study["command"]}`',
        '',
        *([study['protocol'], ''] if 'protocol' in study else []),
        *_table(name, study, counts),
        '',
        *results_tasks.drawn(name, study),
        *results_tasks.affinities(name, study),
        *_flags([study]),
    ]


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
        return results_tasks.by_task(name, study)
    return _by_count(study, counts) if len(counts) > 1 else _by_arm(name, study)


def _by_count(study: dict, counts: list) -> list[str]:
    """A row a label count, a column an arm."""
    arms = study['arms']
    lines = header('labels per class', *(arm.replace('_', '-') for arm in arms))
    for count in counts:
        rows = {row['arm']: row for row in study['comparison'] if row[AXIS] == count}
        cells = [cell(rows[arm], study['baseline'] in ('', arm)) for arm in arms]
        lines.append(row_of(count, *cells))
    return lines


def _by_arm(name: str, study: dict) -> list[str]:
    """A row an arm; columns: the last step, that selected without target labels, that with them,
    other scores, and what was published. Other selections are in the report and in what is kept.
    """
    selections = study.get('selections', {})  # the configured one first of those without labels
    free = [name for name in selections if name not in ('last', 'oracle')]
    shown = ('last', *free[:1], 'oracle')
    selections = {name: rows for name, rows in selections.items() if name in shown}
    selections = selections or {'accuracy': study['comparison']}
    reported = published(name, study)
    also = study.get('also', {})
    titles = [words(column) for column in (*selections, *also)]
    lines = header('', *titles, 'seeds', *(['published'] if reported else []))
    for arm in study['arms']:
        rows = [one for table in selections.values() for one in table if one['arm'] == arm]
        plain = not study['baseline'] or arm in (study['baseline'], study.get('ceiling'))
        cells = [cell(row, plain) for row in rows]
        cells += [cell(row, True) for table in also.values() for row in table if row['arm'] == arm]
        beside = [reported.get(arm, '')] if reported else []
        lines.append(row_of(arm.replace('_', '-'), *cells, rows[0]['n'], *beside))
    return lines


def runs(kept: list[dict]) -> str:
    """Markdown: a row a single run."""
    lines = ['| run | accuracy | seeds | command |', '|---|---|---|---|']
    for run in kept:
        cells = []
        for row in run['summary']:
            stream = row.get('stream', 'test')
            where = '' if stream == 'test' else f'{stream} '
            cells.append(f'{where}{100 * row["mean"]:.1f} ± {100 * row["std"]:.1f}')
        seeds = run['summary'][0]['n']
        lines.append(row_of(run['title'], '<br>'.join(cells), seeds, f'`{run["command"]}`'))
    flags = _flags(kept)
    return '\n'.join([*lines, '', *flags[:-1]] if flags else lines)


def speed(benchmark: dict) -> str:
    """Markdown: a row a case of the benchmark."""
    lines = [
        '| case | cores | tljax, ms | beside it | its ms | ratio | half of the rounds within |',
        '|---' * 7 + '|',
    ]
    for row in benchmark['rows']:
        spread = 'one round'
        if 'spread' in row:
            spread = '{:.2f} to {:.2f}'.format(*row['spread'])
        ours, theirs = (f'{row[key]:,.1f}' for key in ('ours_ms', 'theirs_ms'))
        cells = row['case'], str(row['cores']), ours, row['against'], theirs, f'{row["ratio"]:.2f}'
        lines.append(row_of(*cells, spread))
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
    lines = header('source', *(words(score) for score in scores), 'fine-tuned')
    for name in sorted(found['reached'], key=lambda name: -found['reached'][name]):
        means = [statistics.mean(found['scores'][name][score]) for score in scores]
        cells = [f'{mean:.3f}' for mean in means]
        lines.append(row_of(name, *cells, f'{100 * found["reached"][name]:.1f}'))
    tau = [f'{found["kendall_tau"][score]:+.2f}' for score in scores]
    return '\n'.join([*lines, row_of("Kendall's tau", *tau, '')])
