"""From a config to its streams: which images, which labels, and what they are like together."""

from collections.abc import Mapping

import numpy as np

from tljax.data import augment, decode, episodes, semantics, sources
from tljax.data import streams as data
from tljax.evaluation import unseen
from tljax.methods.networks import encoder
from tljax.train import Members
from tljax.types import Spec, Task


def pixels_of(config, fit: str = '') -> decode.Pixels:
    """What every image is made into: what data.size and data.channels say, or the net declares."""
    wanted, data = encoder(config).input, config.data
    size, channels = data.size or wanted.size, data.channels or wanted.channels or None
    return decode.Pixels(size, channels, fit or data.fit)


def _load(
    config, name: str, stream: Mapping, known: dict[str, sources.Source] | None
) -> sources.Source:
    """The source of a stream; from `known`, which it is put into, if that is given."""
    if known is None:
        return _opened(config, name, stream)
    key = repr((dict(stream), pixels_of(config, stream['fit']), config.data.data_dir))
    if key not in known:
        known[key] = _opened(config, name, stream)
    return known[key]


def _opened(config, name: str, stream: Mapping) -> sources.Source:
    try:
        if stream['labelled'] and stream['dataset'].startswith('images:'):
            raise ValueError(
                f'{stream["dataset"]} has no labels: give folder:PATH, with a sub-folder for each '
                'class, or labelled=False'
            )
        source = sources.load(
            stream['dataset'],
            stream['split'],
            **pixels_of(config, stream['fit'])._asdict(),
            classes=tuple(stream['classes']) or None,
            only=tuple(stream['only']) or None,
            data_dir=config.data.data_dir or None,
            tasks=tuple(stream['tasks']),
            shares=dict(stream.get('shares', {})),
        )
        source = sources.sampled(source, stream['sample']) if stream['sample'] else source
        # Classes that a split has no examples of can't be drawn from, nor recognised.
        return sources.present(source) if stream.get('draw') or stream.get('protocol') else source
    except ValueError as error:
        raise ValueError(f'stream {name!r}: {error}') from error


def training_streams(
    config, members: Members, known: dict[str, sources.Source] | None = None
) -> dict[str, data.Stream]:
    """The streams that batches are drawn from, few-shot subsets chosen member by member.

    The member axis labels_per_class is for the labelled streams that set labels_per_class; if
    none does, for all labelled ones.

    Args:
      known: sources that were opened before, as several runs share them; filled here.
    """
    wanted = config.data.streams
    few = {name for name, stream in wanted.items() if stream.labels_per_class}
    few = few or {name for name, stream in wanted.items() if stream.labelled}
    streams = {}
    for name, one in wanted.items():
        source = _load(config, name, one, known)
        labels = [
            member.get('labels_per_class', one.labels_per_class) if name in few else 0
            for member in members.table
        ]
        order, count = data.select(source, members.seed.tolist(), labels)
        augmented = augment.build(one.augment) if one.augment else None
        draw, batch = episodes.parse(one.draw) if one.draw else None, batch_of(one)
        stream = data.Stream(name, source, order, count, batch, one.labelled, augmented, draw=draw)
        streams[name] = data.check_batch(stream, config.data.wrap)
    return streams


def batch_of(stream: Mapping) -> int:
    """Examples that a step draws from a stream, as the config describes it."""
    return episodes.parse(stream['draw']).batch if stream.get('draw') else stream['batch']


def held_out_streams(
    config, members: Members, known: dict[str, sources.Source] | None = None
) -> dict[str, data.Stream]:
    """The streams to evaluate on: whole or a fixed part, in order, the same for every member."""
    streams, none = {}, [0] * len(members.table)
    for name, wanted in config.data.evaluate.items():
        source = _load(config, name, wanted, known)
        order, count = data.select(source, none, none)
        stream = data.Stream(name, source, order, count, config.block, wanted.labelled)
        streams[name] = stream._replace(protocol=wanted.protocol)
        if wanted.protocol:
            unseen.check(wanted.protocol, source)
    return streams


def spec_of(streams: Mapping[str, data.Stream], held: Mapping[str, data.Stream]) -> Spec:
    """What the data are.

    Raises:
      ValueError: labelled streams with different classes, any with different image shapes, or a
        class that is trained on and by its stream's protocol is not.
    """
    for stream in streams.values():
        for other in held.values():
            check_unseen(stream, other)
    first, *others = [*streams.values(), *held.values()]
    for other in others:
        a, b = first.source, other.source
        if a.image != b.image:
            raise ValueError(
                f'streams {first.name!r} ({a.name}) and {other.name!r} ({b.name}) differ in image '
                f'shape: {a.image} and {b.image}; set data.size and data.channels'
            )
        # Classes of a protocol for unseen ones are others, and tasks have their own.
        own = not (a.tasks or first.protocol or other.protocol)
        if own and first.labelled and other.labelled and a.classes != b.classes:
            raise ValueError(
                f'streams {first.name!r} ({a.name}) and {other.name!r} ({b.name}) differ in '
                f'classes: {a.classes} and {b.classes}; choose classes= of each stream'
            )
    tasks: dict[str, Task] = {}
    for stream in filter(lambda one: one.labelled, [*streams.values(), *held.values()]):
        for name, task in stream.source.tasks.items():
            if tasks.setdefault(name, task) != task:
                raise ValueError(
                    f'task {name!r} is {task} in stream {stream.name!r} ({stream.source.name}), '
                    f'but {tasks[name]} before; tasks of one name have to be alike'
                )
    tasks = {name: _standardised(name, task, streams) for name, task in tasks.items()}
    examples = {name: stream.order.shape[1] for name, stream in streams.items()}
    rows = {name: len(stream.source.labels) for name, stream in streams.items()}
    labels = [
        one.source.labels for one in streams.values() if one.labelled and not one.source.tasks
    ]
    seen = tuple(np.unique(np.concatenate(labels)).tolist()) if labels else ()
    about = {'examples': examples, 'rows': rows, 'tasks': tasks, 'seen': seen}
    return Spec(first.source.image, first.source.classes, **about)


def check_unseen(stream: data.Stream, other: data.Stream) -> None:
    """Refuses a protocol of unseen classes on classes that are trained on, of the same set."""
    a, b = stream.source, other.source
    set_of = lambda source: source.name.rpartition(' (')[0]
    if not (stream.labelled and other.protocol and set_of(a) == set_of(b)):
        return
    seen = {a.classes[label] for label in np.unique(a.labels)}
    if both := [name for name in b.classes if name in seen]:
        shown = ', '.join(map(repr, both[:5])) + ', ...' * (len(both) > 5)
        raise ValueError(
            f'streams {stream.name!r} ({a.name}) and {other.name!r} ({b.name}) share '
            f'{len(both)} of {len(b.classes)} classes: {shown}; protocol={other.protocol!r} is for '
            'classes never trained on: choose other classes= or splits of each stream'
        )


def _standardised(name: str, task: Task, streams: Mapping[str, data.Stream]) -> Task:
    """A regression with the mean and deviation of the training labels, unless it has its own."""
    labels = [one.source.targets[name] for one in streams.values() if name in one.source.targets]
    if task.kind != 'regression' or task.spread or not labels:
        return task
    columns = [column[np.isfinite(column)] for column in np.concatenate(labels).astype(float).T]
    centre = tuple(float(known.mean()) if known.size else 0.0 for known in columns)
    spread = tuple(float(known.std()) if known.size else 0.0 for known in columns)
    return task._replace(centre=centre, spread=tuple(one or 1.0 for one in spread))


def with_tasks(streams: Mapping[str, data.Stream], tasks: Mapping[str, Task]) -> dict:
    """The streams with the tasks as the spec has them."""
    found = {}
    for name, stream in streams.items():
        own = {task: tasks.get(task, one) for task, one in stream.source.tasks.items()}
        found[name] = stream._replace(source=stream.source._replace(tasks=own))
    return found


def with_embeddings(config, spec: Spec) -> Spec:
    """The spec with class embeddings, if the config names any.

    Raises:
      ValueError: as `semantics.load`.
    """
    if not config.data.embeddings:
        return spec
    return spec._replace(embeddings=semantics.load(config.data.embeddings, spec.classes))
