"""The composition root: a config becomes streams, a method, a fit, scores and files."""

import itertools
import platform
import signal
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import jax
import numpy as np

from tljax import initial, loop, methods, nets, optimizers, partition, prefix, sharding, train
from tljax.checkpoints import Checkpoints
from tljax.console import Show, say
from tljax.data import augment, sources
from tljax.data import streams as data
from tljax.evaluation import classification
from tljax.train import Members
from tljax.types import Method, Spec, unknown
from tljax.workdir import MetricsFile, claim, read_json, write_json

SELECTIONS = {'last': None, 'validation': 'val', 'oracle': 'test'}


def members_of(config) -> Members:
    """Every combination of the values in config.members, or the one member of config.seed.

    Raises:
      ValueError: an axis that is neither seed, labels_per_class nor a hyper-parameter.
    """
    axes = {'seed': (config.seed,)} | {name: tuple(v) for name, v in config.members.items()}
    known = ['seed', 'labels_per_class', *config.hparams]
    for name, values in axes.items():
        if name not in known:
            raise unknown('member axis', name, known)
        if not values or len(set(values)) < len(values):
            raise ValueError(f'members.{name}={values}: expected one or more different values')
    table = tuple(
        dict(zip(axes, row, strict=True)) for row in itertools.product(*axes.values())
    )
    hp = {
        name: np.asarray([member.get(name, value) for member in table], np.float32)
        for name, value in config.hparams.items()
    }
    return Members(table, np.asarray([member['seed'] for member in table], np.uint32), hp)


def backbone_input(config) -> nets.Input:
    """The declared input of the config's net."""
    return build_net(config).input


def build_net(config):
    """The config's backbone; `net.input` overrides fields of its declared input."""
    options = config.net.to_dict()
    changes = options.pop('input', {})
    net = nets.build_backbone(options.pop('name'), **options)
    return net.clone(input=net.input._replace(**changes)) if changes else net


def _load(config, stream: Mapping) -> sources.Source:
    wanted = backbone_input(config)
    return sources.load(
        stream['dataset'],
        stream['split'],
        size=config.data.size or wanted.size,
        channels=config.data.channels or wanted.channels,
        fit=config.data.fit,
        classes=tuple(stream['classes']) or None,
        data_dir=config.data.data_dir or None,
    )


def training_streams(config, members: Members) -> dict[str, data.Stream]:
    """The streams that batches are drawn from, few-shot subsets chosen member by member."""
    streams = {}
    for name, wanted in config.data.streams.items():
        source = _load(config, wanted)
        few = [
            member.get('labels_per_class', wanted.labels_per_class)
            if wanted.labels_per_class or len(config.data.streams) == 1
            else 0
            for member in members.table
        ]
        order, count = data.select(source, list(map(int, members.seed)), few)
        augmentation = augment.build(wanted.augment) if wanted.augment else None
        stream = data.Stream(
            name, source, order, count, wanted.batch, wanted.labelled, augmentation
        )
        stream = data.check_batch(stream, config.data.wrap)
        streams[name] = data.resident(stream, config.data.resident_mb)
    return streams


def held_out_streams(config, members: Members) -> dict[str, data.Stream]:
    """The streams to evaluate on: all of them, in order, the same for every member."""
    streams = {}
    for name, wanted in config.data.evaluate.items():
        source = _load(config, wanted)
        order, count = data.select(source, [0] * len(members.table), [0] * len(members.table))
        stream = data.Stream(name, source, order, count, config.block)
        streams[name] = data.resident(stream, config.data.resident_mb)
    return streams


def spec_of(streams: Mapping[str, data.Stream], held: Mapping[str, data.Stream]) -> Spec:
    """What the data are; every labelled stream must agree on the classes.

    Raises:
      ValueError: streams with different classes or image shapes.
    """
    first, *others = [s for s in (*streams.values(), *held.values()) if s.labelled]
    for other in others:
        for what, a, b in (
            ('classes', first.source.classes, other.source.classes),
            ('image shape', first.source.image, other.source.image),
        ):
            if a != b:
                raise ValueError(
                    f'streams {first.name!r} ({first.source.name}) and {other.name!r} '
                    f'({other.source.name}) differ in {what}: {a} and {b}'
                )
    return Spec(first.source.image, first.source.classes)


def build_method(config, spec: Spec) -> Method:
    """The config's method for these data."""
    if config.method not in methods.METHODS:
        raise unknown('method', config.method, methods.METHODS)
    optimizer = partial(optimizers.build, config.optimizer)
    return methods.METHODS[config.method](config, spec, optimizer)


def parameter_table(config, method: Method, params) -> list[dict]:
    """Path, shape, who trains it in any phase, and at which rate: what a run prints and saves.

    Raises:
      ValueError: a pattern of `trains` or of the layer-wise rates matches nothing.
    """
    for pattern in config.optimizer.rates:
        partition.select(params, pattern)
    owned = [owners for phase in method.phases for owners in train.owners(phase, params).items()]
    rows = []
    for path, leaf in partition.flat(params).items():
        if not hasattr(leaf, 'shape'):
            continue
        trainers = dict.fromkeys(name for name, paths in owned if path in paths)
        rate = config.hparams.rate * optimizers.multiplier(path, config.optimizer.rates)
        rows.append({
            'path': path,
            'shape': list(leaf.shape[1:]),
            'trained_by': ', '.join(trainers),
            'rate': rate if trainers else 0.0,
        })
    return rows


class Prepared:
    """A run ready to fit: everything that a config decides before the first step."""

    def __init__(self, config):
        self.config = config
        self.members = members_of(config)
        if config.selection not in SELECTIONS:
            raise unknown('selection', config.selection, SELECTIONS)
        self.mesh = sharding.mesh(config.sharding.devices)
        self.streams = training_streams(config, self.members)
        self.held = held_out_streams(config, self.members)
        for stream in self.streams.values():
            sharding.check_batch(stream.batch, self.mesh.size, stream.name)
        self.spec = spec_of(self.streams, self.held)
        method = build_method(config, self.spec)
        values = initial.drawn(method, self.spec, self.members.seed)
        if config.init['from']:
            values = initial.load(values, self.members.table, config)
        self.table = parameter_table(config, method, values[0])
        if config.cache_prefix:
            self._cache(method, values)
            method = build_method(config, self.spec)
        self.method, self.values = method, values
        self.lift = partial(
            train.lift, members=len(self.members.table), how=self.options.lifting
        )

    def _cache(self, method, values):
        trained = [row['path'] for row in self.table if row['trained_by']]
        net = build_net(self.config)
        endpoint = prefix.deepest_frozen(net, self.spec, trained)
        lift = partial(train.lift, members=len(self.members.table), how='map')
        compute = partial(prefix.cached, net, endpoint, values, lift, self.config.block)
        self.streams = {name: compute(stream) for name, stream in self.streams.items()}
        self.held = {name: compute(stream) for name, stream in self.held.items()}
        self.spec = self.spec._replace(since=endpoint)

    @property
    def options(self) -> loop.Options:
        config = self.config
        lifting = config.lifting
        if lifting == 'auto':
            lifting = 'vmap'
        return loop.Options(
            config.evaluate_every,
            config.save_every,
            self.mesh,
            config.sharding.parameters,
            lifting,
            block=config.block,
            reader={'workers': config.data.workers},
        )

    def evaluator(self):
        """`evaluate(params, mutable, phase) -> {stream: scores}`, compiled once a stream."""
        place = partial(jax.device_put, device=sharding.replicated(self.mesh))
        block = -(-self.config.block // self.mesh.size) * self.mesh.size
        compiled: dict = {}

        def evaluate(params, mutable, phase):
            found = {}
            for name, stream in self.held.items():
                predict = phase.predict or self.method.predict
                if (name, predict) not in compiled:
                    compiled[name, predict] = data.over_blocks(
                        classification.judge(predict), stream, self.lift, block, place
                    )
                judged = compiled[name, predict]((params, mutable))
                found[name] = classification.scores(judged, len(self.spec.classes))
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
        prepared = Prepared(config)
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
    config, evaluate, stop = prepared.config, prepared.evaluator(), []
    latest: dict = {}
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
            scored,
            (lambda s: np.asarray(s[stream]['accuracy'])) if stream else None,
            record,
            show.step,
            lambda: bool(stop),
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
            'devices': prepared.mesh.size,
        },
    }


def protocol(prepared: Prepared) -> str:
    """One sentence: trained on what, tested on what, selected how."""
    trained = ', '.join(
        f'{name}: {s.source.name}, {_span(s.count)} examples' for name, s in prepared.streams.items()
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


