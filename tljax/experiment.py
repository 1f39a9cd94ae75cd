"""The composition root: a config becomes streams, a method, a fit, scores and files."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from functools import partial
from pathlib import Path

import numpy as np

from tljax import (
    choices,
    hosts,
    initial,
    loop,
    pictures,
    selection,
    summary,
    train,
    trunk,
    workdir,
)
from tljax.board import Board
from tljax.checkpoints import Checkpoints
from tljax.console import Show, say
from tljax.data import fingerprint
from tljax.data import streams as data
from tljax.evaluation import classification, multitask, unseen, zero_shot
from tljax.inputs import held_out_streams, training_streams
from tljax.prepare import Prepared, prepare
from tljax.workdir import MetricsFile, read_json, write_json


def evaluator(prepared: Prepared, selectors: Sequence[str] = ()) -> Callable:
    """`evaluate(params, mutable, phase) -> (scores, judged)`, compiled once a stream.

    The first has the scores of every labelled stream, the second what is known of each example,
    with the outputs that these selectors read.
    """
    lift = partial(train.lift, members=len(prepared.members.table), how=prepared.options.lifting)
    compiled: dict = {}

    def evaluate(params, mutable, phase):
        predict, found, judged = phase.predict or prepared.method.predict, {}, {}
        for name, stream in prepared.held.items():
            if (name, predict) not in compiled:
                among = prepared.config.data.evaluate[name].among
                outputs = selection.outputs_read(selectors, name)
                if prepared.spec.embeddings is not None and name in zero_shot.PAIR:
                    outputs = sorted({*outputs, 'logits'})
                judge = _judge(predict, stream, outputs, zero_shot.candidates(prepared.spec, among))
                compiled[name, predict] = data.over_blocks(
                    judge, stream, lift, prepared.config.block, prepared.options.mesh
                )
            judged[name] = compiled[name, predict]((params, mutable))
            if stream.labelled:
                found[name] = _scores(prepared, stream, judged[name])
        if prepared.spec.embeddings is not None and (
            joint := zero_shot.generalised(found, judged, prepared.spec.seen)
        ):
            found['unseen'] |= joint
        return found, judged

    return evaluate


def _judge(
    predict: Callable, stream: data.Stream, outputs: Sequence[str], among: np.ndarray | None
) -> Callable:
    """What evaluation computes of each example of a stream; `among` [C]: classes to answer with."""
    if stream.source.tasks and stream.labelled:
        return multitask.judge(predict, stream.source.tasks, outputs)
    if stream.protocol:
        outputs = sorted({*outputs, 'features'})
    return classification.judge(predict, outputs, among)


def _scores(prepared: Prepared, stream: data.Stream, judged: Mapping) -> dict:
    """The scores of a whole stream: by task, by its protocol of unseen classes, or by class."""
    source = stream.source
    if source.tasks:
        return multitask.scores(judged, source.tasks)
    if stream.protocol:
        metric = unseen.metric_of(prepared.config.method)
        return unseen.scores(judged, source, stream.protocol, metric)
    return classification.scores(judged, len(prepared.spec.classes))


def run(config, directory: Path, command: str = '', known: dict | None = None) -> dict:
    """Trains one run in its directory, or goes on with it; returns its results.

    The directory belongs to this config only once everything in the config has proved possible:
    after bad input the corrected config may use it.

    Args:
      config: of the run.
      directory: of the run.
      command: that was given, for the record.
      known: of a study, what its runs need not read twice; see `_finished`.

    Raises:
      ValueError: bad input, with what was expected, or data that have changed on the way.
      FloatingPointError: a loss that is not finite.
      loop.Stopped: SIGTERM came; everything is saved.
    """
    directory, begun = Path(directory).absolute(), time.perf_counter()
    whole = initial.identity(config)
    workdir.check(directory, whole)
    if (directory / 'results.json').exists():
        return _finished(config, directory, {} if known is None else known)
    with workdir.held(directory) if hosts.leads() else nullcontext():
        workdir.check(directory, whole)  # again, now that nobody else writes
        prepared = prepare(config)
        workdir.check_data(directory, config, prepared.digests)
        hosts.meet(f'{directory} checked')  # before it looks other
        workdir.claim(directory, whole, prepared.digests)
        if prepared.trunk:
            trunk.write(directory, prepared.trunk)
        with loop.terminated() as stopping:
            results = _completed(prepared, directory, command, begun, stopping)
        for warning in results['warnings']:
            say(f'{config.name}: warning: {warning}')
        if stopping():
            raise loop.Stopped(f'stopped at the end of {config.name}; everything is saved')
    return results


def _completed(
    prepared: Prepared, directory: Path, command: str, begun: float, stopping: Callable[[], bool]
) -> dict:
    """Fits, evaluates and writes the results."""
    setup = time.perf_counter() - begun
    fitted, scores, lines = _fit(prepared, directory, stopping)
    if hosts.leads():
        pictures.leave(prepared, (fitted.params, fitted.mutable), directory)
    results = summary.describe(prepared, fitted, scores, lines, command) | {
        'seconds': {
            'setup': round(setup, 2),
            'train': round(fitted.seconds, 2),
            'total': round(fitted.earlier + time.perf_counter() - begun, 2),
        }
    }
    write_json(directory / 'results.json', results)
    hosts.meet(f'{directory} finished')
    return results


def _finished(config, directory: Path, known: dict) -> dict:
    """The results of a run that has them, whose data have to be those that it began with.

    Where there are no data any more, as on another machine, there is nothing to compare.

    Args:
      config: of the run.
      directory: of the run.
      known: digests of the data of other runs, by what is read; added to.
    """
    note, key = '', json.dumps([config.data.to_dict(), config.net.to_dict()], sort_keys=True)
    if (directory / workdir.DATA).exists():
        try:
            if key not in known:
                members = choices.members(config)
                both = training_streams(config, members), held_out_streams(config, members)
                known[key] = fingerprint.digests(config, *both)
        except (ValueError, OSError) as error:
            note = f' (its data cannot be read to see whether they have changed: {error})'
        workdir.check_data(directory, config, known.get(key, {}))
    say(f'finished already: {directory}{note}')
    return read_json(directory / 'results.json')


def _fit(prepared: Prepared, directory: Path, stopping: Callable[[], bool]):
    """Fits and evaluates: what was fitted, its scores, and the lines of metrics."""
    config, members, latest = prepared.config, prepared.members.table, {}
    labelled = {
        name: stream.labelled and multitask.has_accuracy(stream.source.tasks)
        for name, stream in prepared.held.items()
    }
    selectors = selection.possible(labelled)
    evaluate = evaluator(prepared, selectors)
    select = config.selection if config.selection != selection.LAST else ''

    def scored(params, mutable, phase):
        found, judged = evaluate(params, mutable, phase)
        latest.clear()
        latest.update(found)
        values = selection.scores(selectors, judged, found, len(members))
        return summary.brief(found) | {'selection': values}

    with ExitStack() as stack:
        checkpoints = stack.enter_context(closing(Checkpoints(directory / 'checkpoints')))
        meta = checkpoints.latest()
        if meta:
            say(f'{config.name}: going on from step {meta["step"]}')
        metrics = MetricsFile(directory / 'metrics.jsonl', meta['lines'] if meta else 0)
        total = sum(phase.steps for phase in prepared.method.phases)
        show = stack.enter_context(Show(config.name, total))
        recorders = [metrics.append, show.evaluated]
        if config.tensorboard and hosts.leads():
            start = meta['step'] + 1 if meta else 0
            board = Board(directory / 'tensorboard', members, start)
            recorders.append(stack.enter_context(closing(board)).append)
        calls = loop.Calls(
            evaluate=scored,
            record=lambda line: [record(line) for record in recorders],
            progress=show.step,
            stopping=stopping,
            score=(lambda s: selection.ranked(s['selection'][select])) if select else None,
        )
        fitted = loop.fit(
            prepared.method,
            prepared.streams,
            prepared.members,
            prepared.values,
            checkpoints,
            prepared.options,
            calls,
        )
    if select or not latest:  # the selected state is not the last one evaluated
        latest, _ = evaluate(fitted.params, fitted.mutable, prepared.method.phases[-1])
    params, mutable = hosts.local((fitted.params, fitted.mutable))
    return fitted._replace(params=params, mutable=mutable), latest, metrics.lines
