"""Keeps the numbers of finished runs in the repository and renews the README's tables.

    python launch/results.py RUN_DIRECTORY...   # keep these, as configs/results/NAME.*
    python launch/results.py                    # only renew the tables

A study gives a table and a figure, a single run a row. `benchmark.json` there is what
`launch/benchmark.py --out` wrote, `ranking.json` what `launch/rank.py --out` did. The tables stand
between marker comments in README.md; nobody edits them by hand.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from launch import results_tables as tables  # noqa: E402
from tljax import verdict, workdir  # noqa: E402
from tljax.report import canvas, figures, task_panels  # noqa: E402

KEPT = ROOT / 'configs/results'


def keep(directory: Path) -> Path:
    """Writes what is worth keeping of a run or a study; returns the file."""
    results = workdir.read_json(directory / 'results.json')
    if 'comparison' in results:
        names = [*results['arms'], *results['supporting']]
        runs = {name: workdir.read_json(directory / name / 'results.json') for name in names}
        kept = {key: results[key] for key in ('title', 'baseline', 'arms', 'metric', 'comparison')}
        kept |= {
            key: results[key]
            for key in ('ceiling', 'selection', 'selections', 'tasks', 'also')
            if results.get(key)
        }
        kept['protocol'] = runs[results['baseline'] or results['arms'][0]]['protocol']
        if told := {
            name: found for name, run in runs.items() if (found := task_panels.affinities(run))
        }:
            kept['affinity'] = {name: _affinity(runs[name]) for name in told}
        flags = {name: run['warnings'] for name, run in runs.items() if run.get('warnings')}
    else:
        runs = {results['name']: results}
        rows = [
            row | {'stream': stream}
            for stream in sorted(results['scores'], key=lambda name: name != 'test')
            for row in verdict.summarise(results['name'], results, stream)
        ]
        kept = {'title': results['description'], 'protocol': results['protocol'], 'summary': rows}
        flags = {'': results['warnings']} if results.get('warnings') else {}
    first = next(iter(runs.values()))
    seconds = sum(run['seconds']['total'] for run in runs.values())
    kept |= {'command': results['command'], 'environment': first['environment']}
    kept |= {'warnings': flags} if flags else {}
    KEPT.mkdir(exist_ok=True)
    path = KEPT / f'{directory.resolve().name}.json'
    workdir.write_json(path, kept | {'minutes': round(seconds / 60, 1)})
    if 'comparison' in kept:
        looks = canvas.styles(kept['arms'], kept['baseline'])
        rows, metric = kept['comparison'], kept['metric']
        counted = len({row.get(tables.AXIS) for row in rows}) > 1
        figure = task_panels.by_setting(kept) or (
            figures.scores(rows, tables.AXIS, looks, metric)
            if counted
            else figures.dots(rows, looks, metric)
        )
        figure.savefig(path.with_suffix('.png'), dpi=160)
        for name, found in told.items():
            for measure, figure in found.items():
                figure.savefig(KEPT / f'{path.stem}_{name}_{measure}.png', dpi=160)
    return path


def _affinity(run: dict) -> dict:
    """Measure -> task -> task -> how they bear on each other, the mean of a run's members."""
    tasks, found = list(run['tasks']), {}
    for measure in task_panels.AFFINITIES:
        mean = np.mean(run['outcome'][measure], axis=0).round(6).tolist()
        pairs = zip(tasks, mean, strict=True)
        found[measure] = {one: dict(zip(tasks, row, strict=True)) for one, row in pairs}
    return found


def renew(text: str, marker: str, table: str) -> str:
    """`text` with the table between the marker comments replaced."""
    begin, end = f'<!-- {marker}: python launch/results.py -->', f'<!-- end of {marker} -->'
    return re.sub(f'{begin}.*?{end}', lambda _: f'{begin}\n{table}\n{end}', text, flags=re.DOTALL)


def renewed(text: str) -> str:
    """A README's text with all of its tables as they follow from what is kept."""
    kept = {path.stem: json.loads(path.read_text()) for path in sorted(KEPT.glob('*.json'))}
    if benchmark := kept.pop('benchmark', None):
        text = renew(text, 'speed', tables.speed(benchmark))
    if found := kept.pop('ranking', None):
        text = renew(text, 'ranking', tables.ranking(found))
    compared = {name: one for name, one in kept.items() if 'comparison' in one}
    text = renew(text, 'glance', tables.glance(compared))
    text = renew(text, 'methods', tables.methods(compared))
    text = renew(text, 'studies', tables.studies(compared))
    return renew(text, 'runs', tables.runs([one for one in kept.values() if 'summary' in one]))


def main(directories: list[str]) -> None:
    for directory in directories:
        print(f'kept {keep(Path(directory)).relative_to(ROOT)}')
    readme = ROOT / 'README.md'
    readme.write_text(renewed(readme.read_text()))


if __name__ == '__main__':
    main(sys.argv[1:])
