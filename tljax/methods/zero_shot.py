"""Zero-shot learning by gradient descent: classes never seen, by what they are like.

A network takes images, or given features, to the space of class embeddings or the other way, and
the answer is the nearest of the candidate classes. Features are first centred and divided by their
`spread`, both found on the stream 'source' before the first step; class embeddings of each kind
have length 1. All are `build(config, spec, optimizer)`, train what `config.trains` names (the
projection is 'head', linear or 'mlp' as config.head says), and have the option

- calibration: taken off the scores of the classes seen in training (Chao et al. 2016,
  arXiv:1605.04253), for answers among all classes.

The roles without parameters are 'training' (embeddings, which of the classes are seen, what
features are divided by) and 'candidates' (the classes to answer with, which may be replaced).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tljax import nets
from tljax.data.streams import unit as in_unit
from tljax.kernels import compatibility
from tljax.losses import zero_shot as losses
from tljax.losses.classification import accuracy
from tljax.methods.networks import Classifier
from tljax.methods.probe import spread
from tljax.nets.apply import apply, variables
from tljax.types import Array, Key, Method, Mutable, Params, Phase, Player, Spec, unknown


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


def trained(config, embedder: Embedder, optimizer, loss, init, predict, calibration) -> Method:
    """One phase, before which features are measured, of the player 'model' on 'source'.

    Args:
      loss: (params, mutable, images, label, key) -> (value, scores [N, C] of training's classes or
        None, mutable).
    """

    def play(params, mutable, batch, hp, key):
        del hp
        images, label = in_unit(batch['source']['image']), batch['source']['label']
        value, scores, mutable = loss(params, mutable, images, label, key)
        if scores is None:
            return value, ({}, mutable)
        scores = jnp.where(mutable['training']['seen'], scores, -jnp.inf)
        return value, ({'accuracy': accuracy(scores, label)}, mutable)

    def enter(*args):
        params, mutable = embedder.measure(*args)
        found = {'calibration': jnp.float32(calibration)}
        return params, {**mutable, 'training': {**mutable['training'], **found}}

    player = Player('model', config.trains, play, optimizer(config.steps))
    return Method(init, (Phase('train', config.steps, (player,), enter=enter),), predict)


def projection(
    config, spec: Spec, optimizer, *, similarity: str = 'squared', calibration: float = 0.0
) -> Method:
    """Regression to the embedding of the label, and the nearest class.

    Args:
      similarity: 'squared' or 'cosine': both the loss and what is near.
    """
    table = {'squared': losses.squared_error, 'cosine': losses.cosine_distance}
    if similarity not in table:
        raise unknown('similarity', similarity, table)
    distance = table[similarity]

    def loss(found, scores, label, classes, seen):
        del scores, seen
        return distance(found, classes[label])

    return _compatible(config, spec, optimizer, loss, similarity, calibration)


def ranking(
    loss: Callable,
    config,
    spec: Spec,
    optimizer,
    *,
    margin: float = 0.1,
    similarity: str = 'dot',
    calibration: float = 0.0,
) -> Method:
    """Compatibility x W s of features and class embeddings, learnt by a ranking of seen classes.

    Args:
      loss: `losses.zero_shot.devise`, `ale` or `sje`.
      margin: by which the label has to be ahead.
      similarity: of what the head makes of features, and embeddings: 'dot', or 'cosine'.
    """

    def rank(found, scores, label, classes, seen):
        del found, classes
        return loss(scores, label, seen, margin)

    return _compatible(config, spec, optimizer, rank, similarity, calibration)


devise = partial(ranking, losses.devise)
ale = partial(ranking, losses.ale)
sje = partial(ranking, losses.sje)


def _compatible(config, spec, optimizer, loss, similarity: str, calibration: float) -> Method:
    """Training by loss(found [N, A], scores [N, C], label, classes [C, A], seen [C])."""
    embedder = Embedder.build(config, spec)

    def learn(params, mutable, images, label, key):
        found, _, mutable = embedder(params, mutable, images, key)
        classes = embedder.classes(mutable, 'training')
        scores = compatibility(found, classes, similarity)
        return loss(found, scores, label, classes, mutable['training']['seen']), scores, mutable

    def predict(params, mutable, inputs):
        found, features, _ = embedder(params, mutable, inputs)
        scores = compatibility(found, embedder.classes(mutable, 'candidates'), similarity)
        return embedder.answer(scores, features, mutable)

    return trained(config, embedder, optimizer, learn, embedder.init, predict, calibration)


def dem(config, spec: Spec, optimizer, *, width: int = 0, calibration: float = 0.0) -> Method:
    """From class embeddings to features, and the nearest: Zhang, Xiang and Gong 2017, DEM.

    "Learning a deep embedding model for zero-shot learning", arXiv:1611.05088, equation 3 (weight
    decay is the optimizer's). The space of features has fewer hubs, which are near to everything.

    Args:
      width: of the hidden layer; 0: a linear map, or what config.head says.
    """
    count, embedder = check_embeddings(config, spec), Embedder.build(config, spec)
    size = embedder.classifier.width(spec)
    head = {'name': 'mlp', 'widths': (width,)} if width else config.head.to_dict()
    net = nets.build_head(head.pop('name'), size, **head)

    def init(key, spec):
        params, mutable = embedder.init(key, spec)
        made = variables(net, jax.random.fold_in(key, 1), jnp.zeros((2, count)))
        return {**params, 'head': made[0]}, {**mutable, 'head': made[1]}

    def prototypes(params, mutable, of, key=None):
        classes = embedder.classes(mutable, of)
        return apply(net, 'head', params, mutable, classes, key=key)

    def learn(params, mutable, images, label, key):
        keys = jax.random.split(key)
        features, mutable = embedder.features(params, mutable, images, keys[0])
        made, mutable = prototypes(params, mutable, 'training', keys[1])
        value = losses.squared_error(features, made[label]) / size
        return value, compatibility(features, made, 'squared'), mutable

    def predict(params, mutable, inputs):
        features, _ = embedder.features(params, mutable, inputs)
        made, _ = prototypes(params, mutable, 'candidates')
        scores = compatibility(features, made, 'squared') / size
        return embedder.answer(scores, features, mutable)

    return trained(config, embedder, optimizer, learn, init, predict, calibration)


def dap(config, spec: Spec, optimizer, *, calibration: float = 0.0) -> Method:
    """Direct attribute prediction: Lampert, Nickisch and Harmeling 2014, section 2.2.

    "Attribute-based classification for zero-shot visual object categorization". An attribute of a
    class is 1 where it is above its mean over the seen classes. With p(a_m | x) = sigmoid of the
    head's output m and p(a_m) the share of seen classes that have it (equation 5),

        F(x, z) = sum_m log p(a_m^z | x) - log p(a_m^z).
    """
    embedder = Embedder.build(config, spec)

    def binary(mutable, of):
        """Attributes [C, A] in {0, 1}, and the share of seen classes that have each."""
        training = mutable['training']
        seen = training['seen'].astype(jnp.float32)
        mean = seen @ training['vectors'] / seen.sum()
        share = seen @ (training['vectors'] > mean) / seen.sum()
        return (mutable[of]['vectors'] > mean).astype(jnp.float32), jnp.clip(share, 0.01, 0.99)

    def scores_of(logits, mutable, of):
        has, share = binary(mutable, of)
        on = jax.nn.log_sigmoid(logits) - jnp.log(share)
        off = jax.nn.log_sigmoid(-logits) - jnp.log(1.0 - share)
        return on @ has.T + off @ (1.0 - has).T

    def learn(params, mutable, images, label, key):
        logits, _, mutable = embedder(params, mutable, images, key)
        value = losses.attribute_cross_entropy(logits, binary(mutable, 'training')[0][label])
        return value, scores_of(logits, mutable, 'training'), mutable

    def predict(params, mutable, inputs):
        logits, features, _ = embedder(params, mutable, inputs)
        return embedder.answer(scores_of(logits, mutable, 'candidates'), features, mutable)

    return trained(config, embedder, optimizer, learn, embedder.init, predict, calibration)


def conse(config, spec: Spec, optimizer, *, top: int = 10, calibration: float = 0.0) -> Method:
    """Convex combination of class embeddings: Norouzi et al. 2014, arXiv:1312.5650, equation 3.

    A softmax classifier of the seen classes; the embeddings of its `top` most probable classes,
    weighted by their probabilities, are what the cosine of candidates is taken with.

    Args:
      top: T.
    """
    check_embeddings(config, spec)
    embedder = Embedder.build(config, spec, len(spec.classes))

    def masked(logits, mutable):
        return jnp.where(mutable['training']['seen'], logits, -1e9)

    def learn(params, mutable, images, label, key):
        logits, _, mutable = embedder(params, mutable, images, key)
        logits = masked(logits, mutable)
        own = jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], axis=1)
        return -own.mean(), logits, mutable

    def predict(params, mutable, inputs):
        logits, features, _ = embedder(params, mutable, inputs)
        best, which = jax.lax.top_k(masked(logits, mutable), min(top, logits.shape[1]))
        classes = embedder.classes(mutable, 'training')
        found = jnp.einsum('nt,nta->na', jax.nn.softmax(best), classes[which])
        scores = compatibility(found, embedder.classes(mutable, 'candidates'), 'cosine')
        return embedder.answer(scores, features, mutable)

    return trained(config, embedder, optimizer, learn, embedder.init, predict, calibration)
