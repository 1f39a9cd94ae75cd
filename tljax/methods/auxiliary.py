"""Auxiliary classifiers on earlier endpoints, which help to train a deep net and never predict."""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from tljax.losses.classification import accuracy, cross_entropy
from tljax.methods.networks import Classifier
from tljax.nets.apply import apply, variables
from tljax.types import Batch, Hparams, Key, Metrics, Mutable, Params, Scalar, Spec


class Auxiliary(NamedTuple):
    """A classifier, and heads of the same classes on other endpoints of its encoder.

    loss = L(logits) + weight * sum_k L(logits of head k), L the cross entropy: Szegedy et al. 2015,
    arXiv:1409.4842, section 5.
    """

    classifier: Classifier  # which also returns the endpoints of the heads
    heads: Mapping[str, tuple[str, nn.Module]]  # role -> endpoint, net
    weight: float

    @classmethod
    def build(cls, classifier: Classifier, spec: Spec, weight: float) -> 'Auxiliary':
        """The heads that the classifier's encoder declares as `auxiliary`.

        Raises:
          ValueError: it declares none, their endpoints are not computed, or the weight is below 0.
        """
        net = classifier.encoder
        if not isinstance(weight, int | float) or weight < 0:
            raise ValueError(f'options.auxiliary is {weight!r}; expected a number, 0 or more')
        if not (declared := getattr(net, 'auxiliary', {})):
            raise ValueError(f'options.auxiliary: {type(net).__name__} has no auxiliary heads')
        first = net.endpoints.index(classifier.since) if classifier.since else 0
        computed = net.endpoints[first : net.endpoints.index(classifier.endpoint) + 1]
        for endpoint, _ in declared.values():
            if endpoint not in computed:
                raise ValueError(
                    f'options.auxiliary: a head reads {endpoint!r}, and the encoder computes only '
                    f'{", ".join(computed)}; set cache_prefix=False, or a later endpoint'
                )
        heads = {
            role: (endpoint, head(len(spec.classes), dtype=net.dtype))
            for role, (endpoint, head) in declared.items()
        }
        also = tuple(endpoint for endpoint, _ in heads.values())
        return cls(classifier._replace(also=also), heads, weight)

    def init(self, key: Key, spec: Spec) -> tuple[Params, Mutable]:
        """Initial values of the roles 'encoder', 'head' and the heads'."""
        params, mutable = self.classifier.init(key, spec)
        own = {'params': params['encoder'], **mutable['encoder']}
        images = jnp.zeros((2, *spec.image), jnp.float32)
        maps = self.classifier.encoder.apply(own, images, until=self.classifier.also)
        made = {}
        for number, (role, (endpoint, net)) in enumerate(self.heads.items(), start=1):
            made[role] = variables(net, jax.random.fold_in(key, number), maps[endpoint])
        return tuple(
            {**both, **{role: one[i] for role, one in made.items()}}
            for i, both in enumerate((params, mutable))
        )

    def loss(
        self, params: Params, mutable: Mutable, batch: Batch, hp: Hparams, key: Key
    ) -> tuple[Scalar, tuple[Metrics, Mutable]]:
        """Of the stream 'source', with the metrics 'accuracy' and, of the heads, 'auxiliary'."""
        images, label = batch['source']['image'], batch['source']['label']
        keys = jax.random.split(key, 1 + len(self.heads))
        out, mutable = self.classifier(params, mutable, images, keys[0])
        aside = jnp.zeros(())
        for (role, (endpoint, net)), own in zip(self.heads.items(), keys[1:], strict=True):
            logits, mutable = apply(net, role, params, mutable, out[endpoint], key=own)
            aside += cross_entropy(logits, label, hp['label_smoothing'])
        value = cross_entropy(out['logits'], label, hp['label_smoothing']) + self.weight * aside
        metrics = {'accuracy': accuracy(out['logits'], label), 'auxiliary': aside}
        return value, (metrics, mutable)
