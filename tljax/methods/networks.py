"""The networks that methods share, bound to their roles."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from tljax import nets
from tljax.config import tuples
from tljax.nets.apply import apply, variables
from tljax.nets.pooling import POOLINGS, pool
from tljax.types import Array, Key, Mutable, Params, Spec, unknown


def encoder(config) -> nn.Module:
    """The backbone of config.net; its key `input` overrides fields of the declared input."""
    options = tuples(config.net.to_dict())
    changes = options.pop('input', {})
    try:
        net = nets.build_backbone(options.pop('name', ''), **options)
        if extra := set(changes) - set(net.input._fields):
            raise unknown('key of net.input', sorted(extra)[0], net.input._fields)
        wanted = net.input._replace(**changes)
        if {len(wanted.mean), len(wanted.std)} - {1, wanted.channels}:
            raise ValueError(f'net.input: mean and std need one number, or one a channel: {wanted}')
        net = net.clone(input=wanted) if changes else net
        _ = net.endpoints
    except TypeError as error:  # of a value that is none of its option's kind
        raise ValueError(f'net={config.net.to_dict()} cannot be made: {error}') from error
    return net


def check_images(net: nn.Module, image: Sequence[int], until: str = 'features') -> None:
    """Refuses images [H, W, C] that a net cannot take, or that leave an endpoint without a pixel.

    Args:
      until: the last endpoint that is wanted.

    Raises:
      ValueError: says which endpoint, or why.
    """
    names = net.endpoints[: net.endpoints.index(until) + 1]
    images = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    make = partial(net.init_with_output, until=names)
    try:
        found, _ = jax.eval_shape(make, jax.random.key(0), images)
    except Exception as error:  # of JAX or Flax, which have many
        raise ValueError(
            f'net: {type(net).__name__} cannot be made for images {list(image)}: {error}'
        ) from error
    for name, x in found.items():
        if 0 in x.shape:
            raise ValueError(
                f'images {list(image)} are too small for {type(net).__name__}: its {name} is '
                f'{list(x.shape[1:])} of them; take larger ones (data.size, or --size)'
            )


def check_readout(net: nn.Module, endpoints: Sequence[str], pooling: str) -> None:
    """Raises ValueError for an endpoint of a net or a pooling that there is not."""
    for name in endpoints:
        if name not in net.endpoints:
            raise unknown(f'endpoint of {type(net).__name__}', name, net.endpoints)
    if pooling not in POOLINGS:
        raise unknown('pooling', pooling, POOLINGS)


class Classifier(NamedTuple):
    """An encoder and a head on one of its endpoints, in the roles 'encoder' and 'head'."""

    encoder: nn.Module
    head: nn.Module
    since: str | None  # the endpoint that inputs already are; None: images
    endpoint: str = 'features'  # what the head reads ...
    pooling: str = 'mean'  # ... and how, if it is a map or tokens
    also: tuple[str, ...] = ()  # further endpoints to return, as they are
    role: str = 'encoder'  # in which the encoder's values lie

    @classmethod
    def build(cls, config, spec: Spec) -> 'Classifier':
        """From config.net, endpoint, pool and head, for the classes of `spec`."""
        head = dict(config.head)
        if 'classes' in head:
            raise ValueError('head.classes: the data tell the number of classes; leave it out')
        head = nets.build_head(head.pop('name', ''), len(spec.classes), **head)
        net = encoder(config)
        check_readout(net, (config.endpoint,), config.pool)
        if config.pool == 'none':
            raise ValueError("pool='none': a head reads vectors; choose 'flat' for all of a map")
        return cls(net, head, spec.since, config.endpoint, config.pool)

    def init(self, key: Key, spec: Spec) -> tuple[Params, Mutable]:
        """Initial values of both roles, whole even where inputs are a cached endpoint."""
        keys = jax.random.split(key)
        images = jnp.zeros((2, *spec.image), jnp.float32)
        made = {self.role: variables(self.encoder, keys[0], images, until=self.endpoint)}
        own = {'params': made[self.role][0], **made[self.role][1]}
        features = self.encoder.apply(own, images, until=self.endpoint)
        made['head'] = variables(self.head, keys[1], pool(features, self.pooling))
        return tuple({role: both[i] for role, both in made.items()} for i in (0, 1))

    def width(self, spec: Spec) -> int:
        """D of the features."""
        images = jnp.zeros((1, *spec.image), jnp.float32)
        features = lambda key: pool(
            self.encoder.init_with_output(key, images, until=self.endpoint)[0], self.pooling
        )
        return jax.eval_shape(features, jax.random.key(0)).shape[-1]

    def layers(
        self,
        params: Params,
        mutable: Mutable,
        inputs: Array,
        names: Sequence[str],
        key: Key | None = None,
    ) -> tuple[dict[str, Array], Mutable]:
        """Endpoints of the encoder, of images or of a cached endpoint.

        Images are normalised here, as the encoder declares, and nowhere else.
        """
        if self.since is None:
            inputs = self.encoder.input.normalise(inputs)
        cut = {'since': self.since, 'until': tuple(names)}
        return apply(self.encoder, self.role, params, mutable, inputs, key=key, **cut)

    def features(
        self, params: Params, mutable: Mutable, inputs: Array, key: Key | None = None
    ) -> tuple[Array, Mutable]:
        """[N, D], of images or of a cached endpoint, which may be pooled already."""
        found, mutable = self.layers(params, mutable, inputs, (self.endpoint,), key)
        return pool(found[self.endpoint], self.pooling), mutable

    def __call__(
        self, params: Params, mutable: Mutable, inputs: Array, key: Key | None = None
    ) -> tuple[dict[str, Array], Mutable]:
        """'logits' [N, C], 'features' [N, D] and `also`, of images or of the cached endpoint."""
        keys = (None, None) if key is None else jax.random.split(key)
        names = (*self.also, self.endpoint)
        found, mutable = self.layers(params, mutable, inputs, names, keys[0])
        features = pool(found[self.endpoint], self.pooling)
        logits, mutable = apply(self.head, 'head', params, mutable, features, key=keys[1])
        also = {name: found[name] for name in self.also}
        return {**also, 'logits': logits, 'features': features}, mutable
