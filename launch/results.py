"""Keeps a finished study's numbers in the repository and renews the README's table of results.

    python launch/results.py RUN_DIRECTORY...     # keep these, as configs/results/NAME.*
    python launch/results.py                      # only renew the table

The table stands between two marker comments in README.md; nobody edits it by hand.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tljax import workdir  # noqa: E402
from tljax.report import canvas, figures  # noqa: E402

KEPT = ROOT / 'configs/results'
BEGIN, END = '<!-- results: python launch/results.py -->', '<!-- end of results -->'


def keep(directory: Path) -> Path:
    """Writes what is worth keeping of a study; returns the file."""
    study = workdir.read_json(directory / 'results.json')
    if 'comparison' not in study:
        raise ValueError(f'{directory} holds a single run; only studies are kept')
    arms = {name: workdir.read_json(directory / name / 'results.json') for name in study['arms']}
    first = arms[study['baseline']]
    supporting = [workdir.read_json(directory / n / 'results.json') for n in study['supporting']]
    runs = [*arms.values(), *supporting]
    kept = {key: study[key] for key in ('title', 'command', 'baseline', 'arms', 'metric')} | {
        'protocol': first['protocol'],
        'environment': first['environment'],
        'minutes': round(sum(run['seconds']['total'] for run in runs) / 60, 1),
        'comparison': study['comparison'],
    }
    KEPT.mkdir(exist_ok=True)
    path = KEPT / f'{study["name"]}.json'
    workdir.write_json(path, kept)
    looks = canvas.styles(study['arms'], study['baseline'])
    figure = figures.scores(study['comparison'], 'labels_per_class', looks, study['metric'])
    figure.savefig(path.with_suffix('.png'), dpi=160)
    return path


def table(kept: list[dict]) -> str:
    """Markdown: a block of rows a study, a row a setting, a column an arm."""
    lines = []
    for study in kept:
        arms = study['arms']
        axes = [k for k in study['comparison'][0] if k in ('labels_per_class',)]
        lines += [
            f'**{study["title"]}** — {study["minutes"]:.0f} min on 2 CPU cores, '
            f'`{study["command"]}`',
            '',
            '| labels per class | ' + ' | '.join(arm.replace('_', '-') for arm in arms) + ' |',
            '|---' * (len(arms) + 1) + '|',
        ]
        for setting in dict.fromkeys(tuple(row[a] for a in axes) for row in study['comparison']):
            rows = {
                r['arm']: r for r in study['comparison'] if tuple(r[a] for a in axes) == setting
            }
            cells = [_cell(rows[arm], arm == study['baseline']) for arm in arms]
            lines.append(f'| {", ".join(map(str, setting))} | ' + ' | '.join(cells) + ' |')
        lines.append('')
    return '\n'.join(lines)


def _cell(row: dict, baseline: bool) -> str:
    text = f'{100 * row["mean"]:.1f} ± {100 * row["std"]:.1f}'
    if baseline:
        return text
    return (
        f'{text}<br>{100 * row["delta_mean"]:+.1f} ± {100 * row["delta_ci95"]:.1f} {row["verdict"]}'
    )


def main(directories: list[str]) -> None:
    for directory in directories:
        print(f'kept {keep(Path(directory)).relative_to(ROOT)}')
    kept = [json.loads(path.read_text()) for path in sorted(KEPT.glob('*.json'))]
    readme = ROOT / 'README.md'
    text = readme.read_text()
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    readme.write_text(f'{head}{BEGIN}\n{table(kept)}\n{END}{tail}')


if __name__ == '__main__':
    main(sys.argv[1:])
