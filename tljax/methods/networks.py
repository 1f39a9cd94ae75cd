"""The networks that methods share, bound to their roles."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from tljax import nets
from tljax.nets.apply import apply, variables
from tljax.types import Array, Key, Mutable, Params, Spec, unknown


def encoder(config) -> nn.Module:
    """The backbone of config.net; its key `input` overrides fields of the declared input."""
    options = config.net.to_dict()
    changes = options.pop('input', {})
    net = nets.build_backbone(options.pop('name', ''), **options)
    if extra := set(changes) - set(net.input._fields):
        raise unknown('key of net.input', sorted(extra)[0], net.input._fields)
    wanted = net.input._replace(**changes)
    if {len(wanted.mean), len(wanted.std)} - {1, wanted.channels}:
        raise ValueError(f'net.input: mean and std need one number, or one a channel: {wanted}')
    return net.clone(input=wanted) if changes else net


class Classifier(NamedTuple):
    """An encoder and a head on its features, in the roles 'encoder' and 'head'."""

    encoder: nn.Module
    head: nn.Module
    since: str | None  # the endpoint that inputs already are; None: images
    also: tuple[str, ...] = ()  # further endpoints of the encoder to return

    @classmethod
    def build(cls, config, spec: Spec) -> 'Classifier':
        """From config.net and config.head, for the classes of `spec`."""
        head = dict(config.head)
        if 'classes' in head:
            raise ValueError('head.classes: the data tell the number of classes; leave it out')
        head = nets.build_head(head.pop('name', ''), len(spec.classes), **head)
        return cls(encoder(config), head, spec.since)

    def init(self, key: Key, spec: Spec) -> tuple[Params, Mutable]:
        """Initial values of both roles, whole even where inputs are a cached endpoint."""
        keys = jax.random.split(key)
        images = jnp.zeros((2, *spec.image), jnp.float32)
        made = {'encoder': variables(self.encoder, keys[0], images)}
        features = self.encoder.apply({'params': made['encoder'][0], **made['encoder'][1]}, images)
        made['head'] = variables(self.head, keys[1], features)
        return tuple({role: both[i] for role, both in made.items()} for i in (0, 1))

    def __call__(
        self, params: Params, mutable: Mutable, inputs: Array, key: Key | None = None
    ) -> tuple[dict[str, Array], Mutable]:
        """'logits' [N, C], 'features' [N, D] and `also`, of images or of the cached endpoint.

        Images are normalised here, as the encoder declares, and nowhere else.
        """
        keys = (None, None) if key is None else jax.random.split(key)
        if self.since is None:
            inputs = self.encoder.input.normalise(inputs)
        cut = {'since': self.since, 'until': (*self.also, 'features')}
        found, mutable = apply(self.encoder, 'encoder', params, mutable, inputs, key=keys[0], **cut)
        logits, mutable = apply(self.head, 'head', params, mutable, found['features'], key=keys[1])
        return {'logits': logits, **found}, mutable
