"""A study: several runs of one base config, trained in order and compared with a baseline."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tljax import (
    choices,
    experiment,
    hosts,
    initial,
    prepare,
    report,
    selection,
    summary,
    tables,
    verdict,
    wording,
    workdir,
)
from tljax import config as configs
from tljax.console import CONSOLE, say
from tljax.data import sources
from tljax.evaluation import multitask
from tljax.evaluation.classification import METRICS
from tljax.types import unknown


def run(config, directory: Path, command: str = '') -> dict:
    """Trains a run, or all runs of a study, and writes the report; returns the results."""
    directory, config = Path(directory).absolute(), configs.checked(config)
    if not config.runs:
        results = experiment.run(config, directory, command)
        say(f'{config.name}: {_headline(results)}')
    else:
        results = _study(config, directory, command)
    if hosts.leads():
        say(f'report: {report.write(directory)}')
    return results


def _study(config, directory: Path, command: str) -> dict:
    runs, arms, compare = _in_order(config), {}, config.compare
    _check(compare, runs, directory)
    # Every run looks after its own directory: a study that is corrected or added to keeps the runs
    # that the change leaves as they were.
    identities: dict[str, dict] = {}
    known: dict = {}  # digests of data that several runs share
    for name, one in runs.items():
        identities[name] = initial.identity(one, identities)
    workdir.check_study(directory, identities)
    for name, one in runs.items():
        for place, key in ((one.init, 'from'), (one.tuned, 'by')):
            if place[key] in runs:
                place[key] = str(directory / place[key])
        arms[name] = experiment.run(one, directory / name, command, known)
        workdir.claim(directory, config.to_dict())
        say(f'{name}: {_headline(arms[name])}')
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
            f'{stream} {metric}': verdict.compare(
                compared,
                compare.baseline,
                stream,
                metric,
                lower_is_better=multitask.lower_is_better(metric),
            )
            for stream, metric in also_shown(compare)
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


def _check(compare, runs: Mapping[str, Any], directory: Path) -> None:
    """Refuses before training what could not be run, or not be compared after it.

    Where no arm has an accuracy, for all its tasks are regressions, the loss takes its place.
    """
    if not compare.arms:
        raise ValueError(
            'compare.arms is empty: name the runs to compare (--config.compare.arms=...), of '
            + ', '.join(runs)
        )
    twins = [pair for arm in ('', *compare.arms) for pair in twins_of(compare, arm).items()]
    for task, run in twins:
        if run not in runs:
            raise unknown(f'run in compare.twins[{task!r}]', run, runs)
    judged = {*compare.arms, *(run for _, run in twins)}
    trial = {}
    for name, one in runs.items():
        _naming(name, choices.check, one)
        members = choices.members(one).table
        names = _scores_of(one, directory / name) if name in judged else {}
        zeros = [0.0] * len(members)
        evaluated = {stream: dict.fromkeys(scores, zeros) for stream, scores in names.items()}
        trial[name] = {'members': members, 'scores': evaluated}
    arms = {name: trial[name] for name in compare.arms}
    there = [
        arm['scores'][compare.stream] for arm in arms.values() if compare.stream in arm['scores']
    ]
    if compare.metric == 'accuracy' and there and not any('accuracy' in one for one in there):
        compare.metric = 'loss'
        say("no task has an accuracy: arms are compared by 'loss' (--config.compare.metric)")
    verdict.compare(arms, compare.baseline, compare.stream, compare.metric, ceiling=compare.ceiling)
    for stream, _ in also_shown(compare):
        for arm in compare.arms:
            if stream not in trial[arm]['scores']:
                raise unknown(f'stream in compare.also of {arm}', stream, trial[arm]['scores'])
    if compare.twins:
        _by_task(compare, trial)
    known: dict = {}
    for name, one in runs.items():
        if not (directory / name / 'results.json').exists():
            _naming(name, prepare.check, one, known)


def _naming(run: str, check: Callable, *args) -> None:
    try:
        check(*args)
    except ValueError as error:
        raise ValueError(f'run {run!r}: {error}') from error


def _scores_of(run, directory: Path) -> dict[str, Iterable[str]]:
    """The names of a run's scores by labelled stream: those that it has, or is going to have."""
    if (directory / 'results.json').exists():
        return summary.brief(workdir.read_json(directory / 'results.json')['scores'])
    found: dict[str, Iterable[str]] = {}
    for stream, held in run.data.evaluate.items():
        if not held.labelled:
            continue
        found[stream] = METRICS
        if held.tasks:
            try:
                found[stream] = _scores_of_tasks(held, run.data.data_dir)
            except ValueError as error:
                raise ValueError(f'stream {stream!r}: {error}') from error
    return found


def _scores_of_tasks(held, data_dir: str) -> list[str]:
    """What `multitask.scores` will name; one row of the data tells what their tasks are."""
    split = f'{held.split}[:1]' if held.split.isidentifier() else held.split
    options = {'tasks': tuple(held.tasks), 'data_dir': data_dir or None}
    tasks = sources.load(held.dataset, split, **options).tasks
    found = [f'{name}_loss' for name in tasks] + ['loss']
    found += [multitask.metric(name, task) for name, task in tasks.items()]
    return found + ['accuracy'] * multitask.has_accuracy(tasks)


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


def _headline(results: dict) -> str:
    parts = []
    for stream, scores in results['scores'].items():
        for metric in multitask.summary(scores):
            values = scores[metric]
            mean = wording.amount(sum(values) / len(values), metric)
            unit = ' %' if wording.in_per_cent(metric) else ''
            words = metric.replace('_', ' ')
            parts.append(f'{stream} {words} {mean}{unit} (mean of {len(values)})')
    return ', '.join(parts) + f', {results["seconds"]["total"]:.0f} s'
