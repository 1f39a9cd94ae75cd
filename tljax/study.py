"""A study: several runs of one base config, trained in order and compared with a baseline."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tljax import config as configs
from tljax import experiment, report, selection, tables, verdict, wording, workdir
from tljax.console import CONSOLE, say
from tljax.evaluation import multitask
from tljax.evaluation.classification import METRICS
from tljax.prepare import check_choices, members_of
from tljax.types import unknown


def run(config, directory: Path, command: str = '') -> dict:
    """Trains a run, or all runs of a study, and writes the report; returns the results."""
    directory, config = Path(directory).absolute(), configs.checked(config)
    if not config.runs:
        results = experiment.run(config, directory, command)
        say(f'{config.name}: {_summary(results)}')
    else:
        results = _study(config, directory, command)
    say(f'report: {report.write(directory)}')
    return results


def _study(config, directory: Path, command: str) -> dict:
    runs, arms, compare = _in_order(config), {}, config.compare
    _check(compare, runs)
    # Every run looks after its own directory: a study that is corrected or added to keeps the runs
    # that the change leaves as they were.
    identities: dict[str, dict] = {}
    for name, one in runs.items():
        identities[name] = experiment.identity(one, identities)
    workdir.check_study(directory, identities)
    for name, one in runs.items():
        for place, key in ((one.init, 'from'), (one.tuned, 'by')):
            if place[key] in runs:
                place[key] = str(directory / place[key])
        arms[name] = experiment.run(one, directory / name, command)
        workdir.claim(directory, config.to_dict())
        say(f'{name}: {_summary(arms[name])}')
    results = _compared(config, arms, command)
    workdir.write_json(directory / 'results.json', results)
    lower, metric = results['lower_is_better'], compare.metric
    CONSOLE.print(tables.verdicts(results['comparison'], metric, lower_is_better=lower))
    for found in results.get('tasks', {}).get('verdicts', {}).values():
        CONSOLE.print(
            tables.verdicts(found['rows'], found['metric'], lower_is_better=found['lower'])
        )
    if results['selections']:
        CONSOLE.print(tables.selections(results['selections'], metric))
    return results


def _compared(config, arms: Mapping[str, Mapping], command: str) -> dict:
    """results.json of a study, from those of its runs."""
    compare = config.compare
    compared = {name: arms[name] for name in compare.arms}
    lower = multitask.lower_is_better(compare.metric)
    options = {'lower_is_better': lower, 'ceiling': compare.ceiling}
    rows = verdict.compare(compared, compare.baseline, compare.stream, compare.metric, **options)
    selections = {}
    if compare.stream == 'test':  # where the chosen steps are scored
        chosen = (compared, compare.baseline, config.selection, compare.metric)
        selections = selection.compare(*chosen, **options)
    return {
        'name': config.name,
        'title': config.title or config.name,
        'description': config.description,
        'command': command,
        'baseline': compare.baseline,
        'ceiling': compare.ceiling,
        'arms': list(compare.arms),
        'supporting': [name for name in config.runs if name not in compare.arms],
        'stream': compare.stream,
        'metric': compare.metric,
        'lower_is_better': lower,
        'comparison': rows,
        'also': {
            ' '.join(score): verdict.compare(compared, compare.baseline, *score)
            for score in also_shown(compare)
        },
        **_by_task(compare, arms),
        'selection': config.selection,
        'selections': selections,
    }


def also_shown(compare) -> list[tuple[str, str]]:
    """The other scores that a study shows: (stream, metric)."""
    pairs = [one.partition(':') for one in compare.also]
    return [(stream, metric or compare.metric) for stream, _, metric in pairs]


def _by_task(compare, arms: Mapping[str, Mapping]) -> dict:
    """As 'tasks' the verdicts of every task against the run that learns it alone."""
    if not compare.twins:
        return {}
    several = {name: arms[name] for name in compare.arms}
    every = {
        arm: {task: arms[run] for task, run in twins_of(compare, arm).items()} for arm in several
    }
    usual = {task: arms[run] for task, run in twins_of(compare, '').items()}
    return {'tasks': multitask.compare(several, usual, every, compare.stream)}


def twins_of(compare, arm: str) -> dict[str, str]:
    """task -> the run that learns it alone, as it is for this arm."""
    usual = {task: run for task, run in compare.twins.items() if isinstance(run, str)}
    return {**usual, **compare.twins.get(arm, {})} if arm in compare.arms else usual


def _check(compare, runs: Mapping[str, Any]) -> None:
    """Refuses before training what could not be run, or not be compared after it."""
    trial = {}
    for name, one in runs.items():
        check_choices(one)
        members = members_of(one).table
        scores = dict.fromkeys(METRICS, [0.0] * len(members))
        labelled = [stream for stream, held in one.data.evaluate.items() if held.labelled]
        evaluated = dict.fromkeys(labelled, scores)
        trial[name] = {'members': members, 'scores': evaluated}
    arms = {name: trial[name] for name in compare.arms}
    verdict.compare(arms, compare.baseline, compare.stream, compare.metric, ceiling=compare.ceiling)
    for stream, _ in also_shown(compare):
        for arm in compare.arms:
            if stream not in trial[arm]['scores']:
                raise unknown(f'stream in compare.also of {arm}', stream, trial[arm]['scores'])
    for arm in compare.arms:
        for task, run in twins_of(compare, arm).items():
            if run not in runs:
                raise unknown(f'run in compare.twins[{task!r}]', run, runs)


def _in_order(config) -> dict[str, Any]:
    """The runs of a study, each after those that it goes by, else as `arms` has them."""
    whole = {name: configs.merged(config, config.runs[name]) for name in config.runs}
    order: dict[str, Any] = {}

    def visit(name: str, waiting: tuple[str, ...] = ()) -> None:
        if name in waiting:
            raise ValueError(f'runs go by each other: {" -> ".join((*waiting, name))}')
        for source in (whole[name].init['from'], whole[name].tuned.by):
            if source in whole:
                visit(source, (*waiting, name))
        order.setdefault(name, whole[name])

    for name in (*config.compare.arms, *whole):
        if name not in whole:
            raise unknown('arm in compare.arms', name, whole)
        visit(name)
    for name, one in order.items():
        one.update({'name': name})
    return order


def _summary(results: dict) -> str:
    parts = []
    for stream, scores in results['scores'].items():
        for metric in multitask.summary(scores):
            values = scores[metric]
            mean = wording.amount(sum(values) / len(values), metric)
            unit = ' %' if wording.in_per_cent(metric) else ''
            words = metric.replace('_', ' ')
            parts.append(f'{stream} {words} {mean}{unit} (mean of {len(values)})')
    return ', '.join(parts) + f', {results["seconds"]["total"]:.0f} s'
