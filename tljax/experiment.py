"""The composition root: a config becomes streams, a method, a fit, scores and files."""

import platform
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import jax
import numpy as np

from tljax import loop, sharding, train
from tljax.checkpoints import Checkpoints
from tljax.console import Show, say
from tljax.data import streams as data
from tljax.evaluation import classification
from tljax.prepare import Prepared, prepare
from tljax.types import unknown
from tljax.workdir import MetricsFile, claim, read_json, write_json

# selection -> the evaluation stream whose accuracy chooses the step; None: the last step
SELECTIONS = {'last': None, 'validation': 'val', 'oracle': 'test'}


def evaluator(prepared: Prepared) -> Callable:
    """`evaluate(params, mutable, phase) -> {stream: scores}`, compiled once a stream."""
    mesh, classes = prepared.options.mesh, len(prepared.spec.classes)
    place = partial(jax.device_put, device=sharding.batch(mesh))
    block = -(-prepared.config.block // mesh.size) * mesh.size
    lift = partial(train.lift, members=len(prepared.members.table), how=prepared.options.lifting)
    compiled: dict = {}

    def evaluate(params, mutable, phase):
        predict, found = phase.predict or prepared.method.predict, {}
        for name, stream in prepared.held.items():
            if (name, predict) not in compiled:
                judge = classification.judge(predict)
                compiled[name, predict] = data.over_blocks(judge, stream, lift, block, place)
            judged = compiled[name, predict]((params, mutable))
            found[name] = classification.scores(judged, classes)
        return found

    return evaluate


def brief(scores: Mapping) -> dict:
    """What of the scores goes into a line of metrics: all but the confusion matrices."""
    return {
        stream: {k: v for k, v in found.items() if k not in ('confusion', 'count')}
        for stream, found in scores.items()
    }


def run(config, directory: Path, command: str = '') -> dict:
    """Trains one run in its directory, or goes on with it; returns its results.

    Raises:
      ValueError: bad input, with what was expected.
      FloatingPointError: a loss that is not finite.
      loop.Stopped: SIGTERM came; everything is saved.
    """
    directory = claim(directory, config.to_dict())
    if (directory / 'results.json').exists():
        return read_json(directory / 'results.json')
    begun = time.perf_counter()
    checkpoints = Checkpoints(directory / 'checkpoints')
    try:
        prepared = prepare(config)
        meta = checkpoints.latest()
        metrics = MetricsFile(directory / 'metrics.jsonl', meta['step'] if meta else 0)
        if meta:
            say(f'{config.name}: going on from step {meta["step"]}')
        setup = time.perf_counter() - begun
        fitted, scores = _fit(prepared, checkpoints, metrics)
    finally:
        checkpoints.close()
    results = describe(prepared, fitted, scores, command) | {
        'seconds': {
            'setup': round(setup, 2),
            'train': round(fitted.seconds, 2),
            'total': round(time.perf_counter() - begun, 2),
        }
    }
    write_json(directory / 'results.json', results)
    return results


def _fit(prepared: Prepared, checkpoints: Checkpoints, metrics: MetricsFile):
    config, evaluate, stop = prepared.config, evaluator(prepared), []
    latest: dict = {}
    if config.selection not in SELECTIONS:
        raise unknown('selection', config.selection, SELECTIONS)
    stream = SELECTIONS[config.selection]
    if stream and stream not in prepared.held:
        raise ValueError(f'selection={config.selection} needs data.evaluate.{stream}')

    def scored(params, mutable, phase):
        latest.clear()
        latest.update(evaluate(params, mutable, phase))
        return brief(latest)

    with Show(config.name, sum(p.steps for p in prepared.method.phases)) as show:

        def record(line):
            metrics.append(line)
            show.evaluated(line)

        calls = loop.Calls(
            evaluate=scored,
            record=record,
            progress=show.step,
            stopping=lambda: bool(stop),
            score=(lambda s: np.asarray(s[stream]['accuracy'])) if stream else None,
        )
        previous = signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
        try:
            fitted = loop.fit(
                prepared.method,
                prepared.streams,
                prepared.members,
                prepared.values,
                checkpoints,
                prepared.options,
                calls,
            )
        finally:
            signal.signal(signal.SIGTERM, previous)
    if stream or not latest:  # the selected state is not the last one evaluated
        latest = evaluate(fitted.params, fitted.mutable, prepared.method.phases[-1])
    return fitted, latest


def describe(prepared: Prepared, fitted: loop.Fitted, scores: Mapping, command: str) -> dict:
    """results.json: final numbers, with everything needed to say what they are of."""
    config = prepared.config
    return {
        'name': config.name,
        'description': config.description,
        'method': config.method,
        'protocol': protocol(prepared),
        'command': command,
        'members': list(prepared.members.table),
        'classes': list(prepared.spec.classes),
        'selection': config.selection,
        'step': np.asarray(fitted.step).tolist(),
        'scores': scores,
        'parameters': prepared.table,
        'environment': {
            'jax': jax.__version__,
            'python': platform.python_version(),
            'device': jax.devices()[0].device_kind,
            'devices': prepared.options.mesh.size,
        },
    }


def protocol(prepared: Prepared) -> str:
    """One sentence: trained on what, tested on what, selected how."""
    trained = ', '.join(
        f'{name}: {s.source.name}, {_span(s.count)} examples'
        for name, s in prepared.streams.items()
    )
    held = ', '.join(
        f'{name}: {s.source.name}, all {len(s.source.labels)} examples'
        for name, s in prepared.held.items()
    )
    chosen = {
        'last': 'last step',
        'validation': "best step on stream 'val'",
        'oracle': 'oracle: best step on the test stream itself',
    }[prepared.config.selection]
    return f'Trained on {trained}. Evaluated on {held}. Reported: {chosen}.'


def _span(count: np.ndarray) -> str:
    low, high = int(count.min()), int(count.max())
    return str(low) if low == high else f'{low} to {high}'
