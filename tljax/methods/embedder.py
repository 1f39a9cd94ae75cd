"""Features and class embeddings, and how a method of zero-shot learning holds them.

Features are centred and divided by their `spread`, both found on the stream 'source' before the
first step; class embeddings of each kind have length 1. The roles without parameters are 'training'
(embeddings, which of the classes are seen, what features are divided by, the calibration) and
'candidates' (the classes to answer with, which may be replaced).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tljax.data.streams import unit as in_unit
from tljax.losses.classification import accuracy
from tljax.methods.networks import Classifier
from tljax.methods.probe import spread
from tljax.nets.apply import apply
from tljax.types import Array, Key, Method, Mutable, Params, Phase, Player, Spec


def check_embeddings(config, spec: Spec) -> int:
    """The number of a class embedding's columns.

    Raises:
      ValueError: there are none.
    """
    if spec.embeddings is None:
        raise ValueError(
            f'method {config.method!r} needs to know what classes are like: set data.embeddings, '
            "such as ('csv:attributes.csv',)"
        )
    return spec.embeddings.vectors.shape[1]


def scaled(vectors: Array, part: Array) -> Array:
    """Rows [C, A] whose columns of each part have length 1."""
    same = (part[:, None] == part).astype(jnp.float32)
    return vectors * jax.lax.rsqrt(jnp.maximum(vectors**2 @ same, 1e-12))


class Embedder(NamedTuple):
    """An encoder and a head, and what they compare with."""

    classifier: Classifier  # whose head's outputs are no logits

    @classmethod
    def build(cls, config, spec: Spec, width: int = 0) -> 'Embedder':
        """With a head as wide as class embeddings are, or as asked."""
        width = width or check_embeddings(config, spec)
        return cls(Classifier.build(config, spec._replace(classes=tuple(range(width)))))

    def init(self, key: Key, spec: Spec) -> tuple[Params, Mutable]:
        """Encoder and head, and the roles without parameters."""
        params, mutable = self.classifier.init(key, spec)
        return params, {**mutable, **self.roles(spec)}

    def roles(self, spec: Spec) -> Mutable:
        """'training' and 'candidates'."""
        vectors = jnp.asarray(spec.embeddings.vectors, jnp.float32)
        seen = jnp.zeros(len(vectors), bool).at[jnp.asarray(spec.seen, jnp.int32)].set(True)
        mean = jnp.zeros(self.classifier.width(spec))
        about = {'vectors': vectors, 'seen': seen}
        training = {**about, 'part': jnp.asarray(spec.embeddings.part, jnp.int32)}
        training |= {'mean': mean, 'spread': jnp.ones(()), 'calibration': jnp.zeros(())}
        return {'training': training, 'candidates': dict(about)}

    def measure(self, params: Params, mutable: Mutable, over, hp, key) -> tuple[Params, Mutable]:
        """The hook that finds the mean and the spread of the source's features."""
        del hp, key

        def look(batch):
            features, _ = self.classifier.features(params, mutable, batch['image'])
            return features, batch['valid'].astype(jnp.float32)

        features, weights = over('source', look)
        found = {'mean': weights @ features / weights.sum(), 'spread': spread(features, weights)}
        return params, {**mutable, 'training': {**mutable['training'], **found}}

    def features(
        self, params: Params, mutable: Mutable, inputs: Array, key: Key | None = None
    ) -> tuple[Array, Mutable]:
        """[N, D], centred and divided by their spread."""
        found, mutable = self.classifier.features(params, mutable, inputs, key)
        training = mutable['training']
        return (found - training['mean']) / training['spread'], mutable

    def __call__(
        self, params: Params, mutable: Mutable, inputs: Array, key: Key | None = None
    ) -> tuple[Array, Array, Mutable]:
        """What the head makes of the features [N, A], the features [N, D], new statistics."""
        keys = (None, None) if key is None else jax.random.split(key)
        features, mutable = self.features(params, mutable, inputs, keys[0])
        net = self.classifier.head
        found, mutable = apply(net, 'head', params, mutable, features, key=keys[1])
        return found, features, mutable

    def classes(self, mutable: Mutable, of: str) -> Array:
        """The embeddings [C, A] of the classes of training, or of the candidates."""
        return scaled(mutable[of]['vectors'], mutable['training']['part'])

    def answer(self, scores: Array, features: Array, mutable: Mutable) -> dict[str, Array]:
        """What `predict` returns: scores of candidates, those seen in training calibrated."""
        seen = mutable['candidates']['seen']
        logits = scores - mutable['training']['calibration'] * seen
        return {'logits': logits, 'features': features}


def trained(config, embedder: Embedder, optimizer, loss, init, predict) -> Method:
    """One phase, before which features are measured, of the player 'model' on 'source'.

    Args:
      loss: (params, mutable, images, label, hp, key) -> (value, scores [N, C] of training's
        classes, mutable).
    """

    def play(params, mutable, batch, hp, key):
        images, label = in_unit(batch['source']['image']), batch['source']['label']
        value, scores, mutable = loss(params, mutable, images, label, hp, key)
        scores = jnp.where(mutable['training']['seen'], scores, -jnp.inf)
        return value, ({'accuracy': accuracy(scores, label)}, mutable)

    def enter(params, mutable, over, hp, key):
        params, mutable = embedder.measure(params, mutable, over, hp, key)
        found = {'calibration': hp['calibration'].astype(jnp.float32)}
        return params, {**mutable, 'training': {**mutable['training'], **found}}

    player = Player('model', config.trains, play, optimizer(config.steps))
    return Method(init, (Phase('train', config.steps, (player,), enter=enter),), predict)
