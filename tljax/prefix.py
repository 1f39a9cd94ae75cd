"""A frozen prefix of the encoder, computed once per image instead of once per epoch."""

from collections.abc import Callable, Iterable

import flax.linen as nn
import jax
import jax.numpy as jnp

from tljax import partition
from tljax.data import streams as data
from tljax.types import PyTree, Spec


def deepest_frozen(
    net: nn.Module, spec: Spec, values: tuple[PyTree, PyTree], trained: Iterable[str]
) -> str:
    """The last endpoint of the encoder before which nothing is trained and no layer is live.

    Args:
      net: the encoder.
      spec: gives the shape of images.
      values: `(params, mutable)` by role.
      trained: paths of the parameters that any player moves.

    Raises:
      ValueError: there is none.
    """
    trained = frozenset(trained)
    live = partition.trained_modules(*values, trained)
    images = jnp.zeros((2, *spec.image), jnp.float32)
    deepest = None
    for endpoint in net.endpoints:
        key = jax.random.key(0)
        made = jax.eval_shape(lambda k: net.init(k, images, until=endpoint), key)
        leaves = {name: [f'encoder/{p}' for p in partition.paths(made[name])] for name in made}
        layers = {path.rpartition('/')[0] for path in leaves.get(partition.LIVE, ())}
        if trained.intersection(leaves.get('params', ())) or live & layers:
            break
        deepest = endpoint
    if deepest is None:
        raise ValueError(
            f'cache_prefix: the first stage of the encoder, {net.endpoints[0]!r}, is trained, or '
            'its dropout is on, so there is no frozen prefix; set cache_prefix=False or narrow '
            'trains'
        )
    return deepest


def cached(
    net: nn.Module,
    endpoint: str,
    values: tuple[PyTree, PyTree],
    lift: Callable,
    block: int,
    stream: data.Stream,
) -> data.Stream:
    """The stream with the endpoint's activations in place of its images, for every member.

    Raises:
      ValueError: the stream is augmented; what is random may not precede a cached cut.
    """
    if stream.augment:
        raise ValueError(
            f'cache_prefix: stream {stream.name!r} is augmented, so its activations change from '
            'step to step; set cache_prefix=False or remove the augmentation'
        )

    def encode(values, batch):
        params, mutable = values
        variables = {'params': params['encoder'], **mutable.get('encoder', {})}
        return net.apply(variables, net.input.normalise(batch['image']), until=endpoint)

    activations = data.over_blocks(encode, stream, lift, block)(values)
    return stream._replace(image=activations, cached=True)
