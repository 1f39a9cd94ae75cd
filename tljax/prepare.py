"""From a config to a run that is ready to fit: members, streams, method, initial values."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from tljax import (
    backbones,
    choices,
    features,
    initial,
    methods,
    optimizers,
    partition,
    prefix,
    sampling,
    sharding,
    train,
    trunk,
    tuning,
)
from tljax.data import fingerprint, sources
from tljax.data import streams as data
from tljax.inputs import (
    held_out_streams,
    pixels_of,
    spec_of,
    training_streams,
    with_embeddings,
    with_tasks,
)
from tljax.methods.networks import check_images, encoder
from tljax.nets import pretrained
from tljax.program import Options
from tljax.train import Members
from tljax.trunk import Trunk
from tljax.types import Method, PyTree, Spec


class Prepared(NamedTuple):
    """Everything that a config decides before the first step."""

    config: Any
    members: Members
    streams: Mapping[str, data.Stream]  # what batches are drawn from
    held: Mapping[str, data.Stream]  # what is evaluated on
    spec: Spec
    method: Method
    values: tuple[PyTree, PyTree]  # (params, mutable), member axis in front
    table: list[dict]  # of the parameters
    options: Options
    trunk: Trunk | None = None  # of cached activations: what `values` leave out
    digests: Mapping[str, Mapping[str, str]] = {}  # of all data, drawn from or not


def prepare(config) -> Prepared:
    """Raises ValueError for whatever in the config cannot be, before anything is computed."""
    config = tuning.applied(config)
    choices.check(config)
    members = choices.members(config)
    streams, held = training_streams(config, members), held_out_streams(config, members)
    ready = assembled(config, members, streams, held)
    ready = cached(ready) if config.cache_prefix else resident(ready)
    # Of the streams as they were read: a cached prefix keeps only the rows that are drawn.
    return ready._replace(digests=fingerprint.digests(config, streams, held))


def check(config, known: dict[str, sources.Source]) -> None:
    """Refuses a run of a study before the first of them, as far as its own config and data tell.

    Not where that is costly: initial values, the cached prefix and embeddings of classes.

    Args:
      config: of the run; its choices are checked already.
      known: sources that were opened for others; see `training_streams`.

    Raises:
      ValueError: as `prepare` would, when the run's turn came.
    """
    members = choices.members(config)
    streams = training_streams(config, members, known)
    held = held_out_streams(config, members, known)
    spec = spec_of(streams, held)
    if not config.data.embeddings:
        method = build_method(config, spec)
        _check_steps(method, streams)
        parameter_table(config, method, check_shapes(config, method, spec))


def assembled(
    config, members: Members, streams: Mapping[str, data.Stream], held: Mapping[str, data.Stream]
) -> Prepared:
    """Method and initial values for these streams, whose images are not yet read."""
    options, spec = options_of(config), with_embeddings(config, spec_of(streams, held))
    streams, held = with_tasks(streams, spec.tasks), with_tasks(held, spec.tasks)
    method = build_method(config, spec)
    _check_steps(method, streams)
    check_shapes(config, method, spec)
    values = initial.values(method, spec, members, config)
    table = parameter_table(config, method, values[0])
    return Prepared(config, members, streams, held, spec, method, values, table, options)


def _check_steps(method: Method, streams: Mapping[str, data.Stream]) -> None:
    steps = sum(phase.steps for phase in method.phases)
    for stream in streams.values():
        sampling.check_range(steps, stream.batch, stream.name)


def resident(ready: Prepared) -> Prepared:
    """With the images of small streams in memory."""
    limit = ready.config.data.resident_mb
    streams, held = (
        {name: data.resident(stream, limit) for name, stream in each.items()}
        for each in (ready.streams, ready.held)
    )
    return ready._replace(streams=streams, held=held)


def cached(ready: Prepared) -> Prepared:
    """With activations of the frozen trunk in place of images, and without the trunk's values."""
    config, spec = ready.config, ready.spec
    for stream in ready.streams.values():
        prefix.check(stream)
    net, trained = encoder(config), [row['path'] for row in ready.table if row['trained_by']]
    cut = prefix.deepest_frozen(net, spec, ready.values, trained, config.endpoint)
    spec = spec._replace(since=cut)
    method = prefix.settled(build_method(config, spec), ready.values[0])
    values, frozen = trunk.split(ready.values, cut, prefix.layers(net, spec, cut))
    # Maps that only the head reads are kept as it reads them.
    pooling = config.pool if cut == config.endpoint else 'none'
    whole, limit = bool(config.features.root), config.data.resident_mb
    for stream in (*ready.streams.values(), *ready.held.values()):
        prefix.check_size(stream, frozen, net, pooling, whole, limit)
    streams, held = (
        {
            name: prefix.cached(
                stream,
                frozen,
                partial(activations, ready, net, cut, pooling, config.data[place][name]),
                whole,
            )
            for name, stream in each.items()
        }
        for place, each in (('streams', ready.streams), ('evaluate', ready.held))
    )
    return ready._replace(
        streams=streams, held=held, spec=spec, method=method, values=values, trunk=frozen
    )


def activations(
    ready: Prepared,
    net,
    cut: str,
    pooling: str,
    of: Mapping,
    variables: PyTree,
    source: sources.Source,
) -> np.ndarray:
    """[N, ...] at the cut of all images of a source, from the store if the config names one."""
    config, store = ready.config, ready.config.features
    how = {'pooling': pooling, 'mesh': ready.options.mesh, 'block': config.block}
    if not store.root:
        return features.all_of(net, variables, source, cut, **how)
    also = ()
    if pretrained.is_published(start := config.init['from']):
        # Kept as those of the whole net, which other endpoints and other runs have in common.
        whole = backbones.values(start, net, source.image, drop=config.init.drop)
        if backbones.same(variables, whole):
            variables, also = whole, store.also
    pixels = pixels_of(config, of.fit)
    key = features.key(source, of.dataset, of.split, pixels, config.data.data_dir, of.sample)
    about = {'weights': start, 'dataset': of.dataset, 'split': of.split}
    how |= {'root': store.root, 'also': also, 'about': about}
    return features.kept(net, variables, source, key, (cut,), **how)[0][cut]


def options_of(config) -> Options:
    lifting = config.lifting
    if lifting == 'auto':
        # A CPU gains nothing from a batched program and loses its caches: one by one is faster.
        lifting = 'map' if jax.default_backend() == 'cpu' else 'vmap'
    return Options(
        mesh=sharding.mesh(config.sharding.devices),
        evaluate_every=config.evaluate_every,
        save_every=config.save_every,
        parameters=config.sharding.parameters,
        lifting=lifting,
        loop=config.loop,
        block=config.block,
        reader={'workers': config.data.workers},
    )


def build_method(config, spec: Spec) -> Method:
    """The config's method for these data."""
    build, options = methods.METHODS[config.method], config.options.to_dict()
    return build(config, spec, partial(optimizers.build, config.optimizer), **options)


def check_shapes(config, method: Method, spec: Spec) -> PyTree:
    """Refuses a net or a head that cannot be made, or cannot take images as these data have.

    Returns:
      The shapes of one member's parameters.
    """
    check_images(encoder(config), spec.image, config.endpoint)
    image = jax.ShapeDtypeStruct((1, *spec.image), np.uint8)
    try:
        made = jax.eval_shape(lambda: method.init(jax.random.key(0), spec))
        jax.eval_shape(method.predict, *made, image)
    except ValueError:
        raise
    except Exception as error:  # of JAX or Flax, which have many
        net, head = config.net.to_dict(), config.head.to_dict()
        raise ValueError(
            f'net={net} with head={head} cannot be made for images {list(spec.image)}: {error}'
        ) from error
    return made[0]


def parameter_table(config, method: Method, params: PyTree) -> list[dict]:
    """Path, shape, who trains it in any phase, and at which rate: what a run prints and saves.

    Raises:
      ValueError: a pattern of `trains` or of the layer-wise rates matches nothing.
    """
    for pattern, factor in config.optimizer.rates.items():
        partition.select(params, pattern)
        if not isinstance(factor, int | float) or factor < 0:
            raise ValueError(f'optimizer.rates[{pattern!r}] is {factor!r}; expected 0 or more')
    owned = [pair for phase in method.phases for pair in train.owners(phase, params).items()]
    rows = []
    leaves = partition.flat(params)
    for path in sorted(partition.paths(params)):
        trainers = dict.fromkeys(name for name, paths in owned if path in paths)
        rate = config.hparams.rate * optimizers.multiplier(path, config.optimizer.rates)
        rows.append(
            {
                'path': path,
                'shape': list(leaves[path].shape[1:]),
                'trained_by': ', '.join(trainers),
                'rate': rate if trainers else 0.0,
            }
        )
    return rows
