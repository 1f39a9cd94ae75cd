"""A frozen prefix of the encoder, computed once per image instead of once per epoch."""

import math
from collections.abc import Callable, Iterable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tljax import features, partition, trunk
from tljax.data import sources
from tljax.data import streams as data
from tljax.trunk import Trunk
from tljax.types import Method, PyTree, Spec


def deepest_frozen(
    net: nn.Module,
    spec: Spec,
    values: tuple[PyTree, PyTree],
    trained: Iterable[str],
    last: str = 'features',
) -> str:
    """The last endpoint of the encoder before which nothing is trained and no layer is live.

    Args:
      net: the encoder.
      spec: gives the shape of images.
      values: `(params, mutable)` by role. A role with all layers of the encoder is a copy of it,
        and counts as it does.
      trained: paths of the parameters that any player moves.
      last: the endpoint to go to at most: what the head reads.

    Raises:
      ValueError: there is none.
    """
    trained, known = frozenset(trained), partition.paths(values[0])
    own = _inside(known, ['encoder'])
    roles = trunk.copies(known, own)
    moved = _inside(trained, roles)
    live = _inside(partition.trained_modules(*values, trained), roles)
    deepest = None
    for endpoint in net.endpoints[: net.endpoints.index(last) + 1]:
        params, stats = layers(net, spec, endpoint)
        modules = {partition.module_path(path).rpartition('/')[0] for path in stats}
        if moved & params or live & modules:
            break
        deepest = endpoint
    if deepest is None:
        raise ValueError(
            f'cache_prefix: the first stage of the encoder, {net.endpoints[0]!r}, is trained, or '
            'its dropout is on, so there is no frozen prefix; set cache_prefix=False or narrow '
            'trains'
        )
    return deepest


def _inside(paths: Iterable[str], roles: Iterable[str]) -> set[str]:
    """The paths below some roles, without the role."""
    cut = (path.partition('/') for path in paths)
    return {inside for role, _, inside in cut if role in roles}


def layers(net: nn.Module, spec: Spec, endpoint: str) -> tuple[set[str], set[str]]:
    """Paths, inside the encoder, of the parameters and of the statistics that an endpoint needs."""
    images = jnp.zeros((2, *spec.image), jnp.float32)
    made = jax.eval_shape(lambda k: net.init(k, images, until=endpoint), jax.random.key(0))
    stats = {name: tree for name, tree in made.items() if name != 'params'}
    return set(partition.paths(made.get('params', {}))), set(partition.paths(stats))


def settled(method: Method, params: PyTree) -> Method:
    """The method with patterns as the paths that they name, which hold if others go."""
    phases = []
    for phase in method.phases:
        players = (
            player._replace(trains='|'.join(sorted(partition.select(params, player.trains))))
            for player in phase.players
        )
        phases.append(phase._replace(players=tuple(players)))
    return method._replace(phases=tuple(phases))


def check(stream: data.Stream) -> None:
    """Raises ValueError for an augmented stream: what is random may not precede a cached cut."""
    if stream.augment:
        raise ValueError(
            f'cache_prefix: stream {stream.name!r} is augmented, so its activations change from '
            'step to step; set cache_prefix=False or remove the augmentation'
        )


def check_size(
    stream: data.Stream, frozen: Trunk, net: nn.Module, pooling: str, whole: bool, limit_mb: float
) -> None:
    """Raises ValueError for activations at the cut that take more than `limit_mb`."""
    image = jax.ShapeDtypeStruct((1, *stream.source.image), stream.source.dtype)
    names = (frozen.endpoint,)
    one = jax.eval_shape(
        lambda variables, image: features.encoded(net, variables, image, names, pooling),
        *(frozen.variables(0), image),
    )[frozen.endpoint]
    if frozen.index.max():  # every member has its own
        rows = stream.order.size
    else:
        rows = len(stream.source.labels) if whole else len(np.unique(stream.order))
    size = math.ceil(rows * one.size * one.dtype.itemsize / 2**20)
    if size > limit_mb:
        raise ValueError(
            f'cache_prefix: the activations of stream {stream.name!r} at {frozen.endpoint!r}, '
            f'{list(one.shape[1:])} of {rows} examples, take {size} MB, and data.resident_mb '
            f'is {limit_mb}; set data.resident_mb to that or more, data.size to fewer pixels, '
            'narrow trains to layers behind a later endpoint, or set cache_prefix=False'
        )


def cached(
    stream: data.Stream,
    frozen: Trunk,
    compute: Callable[[PyTree, sources.Source], np.ndarray],
    whole: bool,
) -> data.Stream:
    """The stream with the activations at the cut in place of its images.

    Members that share a trunk share one copy of them.

    Args:
      stream: not augmented.
      frozen: the trunk.
      compute: (variables of the encoder, source) -> activations [N, ...] of all of its images.
      whole: compute those of all images, not only of those that some member draws from.
    """
    found = []
    for row in range(frozen.index.max() + 1):
        rows = np.arange(len(stream.source.labels))
        drawn = np.unique(stream.order[frozen.index == row])
        if whole or len(drawn) == len(rows):
            found.append((rows, stream.source))
        else:
            found.append((drawn, sources.take(stream.source, drawn)))
    images = [compute(frozen.variables(row), source) for row, (_, source) in enumerate(found)]
    order = [
        np.searchsorted(found[row][0], order).astype(np.int32)
        for row, order in zip(frozen.index, stream.order, strict=True)
    ]
    if len(found) == 1:
        return stream._replace(source=found[0][1], order=np.stack(order), image=images[0])
    image = np.stack([images[row][rows] for row, rows in zip(frozen.index, order, strict=True)])
    return stream._replace(image=image, cached=True)
