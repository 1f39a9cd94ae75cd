"""Zero-shot learning by gradient descent: classes never seen, by what they are like.

A network takes images, or given features, to the space of class embeddings or the other way, and
the answer is the nearest of the candidate classes; see `tljax.methods.embedder`. All are
`build(config, spec, optimizer)` and train what `config.trains` names (the projection is 'head',
linear or 'mlp' as config.head says). For answers among all classes, hparams.calibration is taken
off the scores of the classes seen in training (Chao et al. 2016, arXiv:1605.04253).
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from tljax import nets
from tljax.kernels import compatibility
from tljax.losses import zero_shot as losses
from tljax.methods.embedder import Embedder, check_embeddings, trained
from tljax.nets.apply import apply, variables
from tljax.types import Method, Spec, unknown


def projection(config, spec: Spec, optimizer, *, similarity: str = 'squared') -> Method:
    """Regression to the embedding of the label, and the nearest class.

    Args:
      similarity: 'squared' or 'cosine': both the loss and what is near.
    """
    table = {'squared': losses.squared_error, 'cosine': losses.cosine_distance}
    if similarity not in table:
        raise unknown('similarity', similarity, table)
    distance = table[similarity]

    def loss(found, scores, label, classes, seen, hp):
        del scores, seen, hp
        return distance(found, classes[label])

    return _compatible(config, spec, optimizer, loss, similarity)


def ranking(
    loss: Callable,
    config,
    spec: Spec,
    optimizer,
    *,
    similarity: str = 'dot',
) -> Method:
    """Compatibility x W s of features and class embeddings, learnt by a ranking of seen classes.

    The label has to be ahead by hparams.margin.

    Args:
      loss: `losses.zero_shot.devise`, `ale` or `sje`.
      similarity: of what the head makes of features, and embeddings: 'dot', or 'cosine'.
    """

    def rank(found, scores, label, classes, seen, hp):
        del found, classes
        return loss(scores, label, seen, hp['margin'])

    return _compatible(config, spec, optimizer, rank, similarity)


devise = partial(ranking, losses.devise)
ale = partial(ranking, losses.ale)
sje = partial(ranking, losses.sje)


def _compatible(config, spec, optimizer, loss, similarity: str) -> Method:
    """Training by loss(found [N, A], scores [N, C], label, classes [C, A], seen [C], hp)."""
    embedder = Embedder.build(config, spec)

    def learn(params, mutable, images, label, hp, key):
        found, _, mutable = embedder(params, mutable, images, key)
        classes = embedder.classes(mutable, 'training')
        scores = compatibility(found, classes, similarity)
        value = loss(found, scores, label, classes, mutable['training']['seen'], hp)
        return value, scores, mutable

    def predict(params, mutable, inputs):
        found, features, _ = embedder(params, mutable, inputs)
        scores = compatibility(found, embedder.classes(mutable, 'candidates'), similarity)
        return embedder.answer(scores, features, mutable)

    return trained(config, embedder, optimizer, learn, embedder.init, predict)


def dem(config, spec: Spec, optimizer, *, width: int = 0) -> Method:
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

    def learn(params, mutable, images, label, hp, key):
        del hp
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

    return trained(config, embedder, optimizer, learn, init, predict)


def dap(config, spec: Spec, optimizer) -> Method:
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

    def learn(params, mutable, images, label, hp, key):
        del hp
        logits, _, mutable = embedder(params, mutable, images, key)
        value = losses.attribute_cross_entropy(logits, binary(mutable, 'training')[0][label])
        return value, scores_of(logits, mutable, 'training'), mutable

    def predict(params, mutable, inputs):
        logits, features, _ = embedder(params, mutable, inputs)
        return embedder.answer(scores_of(logits, mutable, 'candidates'), features, mutable)

    return trained(config, embedder, optimizer, learn, embedder.init, predict)


def conse(config, spec: Spec, optimizer, *, top: int = 10) -> Method:
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

    def learn(params, mutable, images, label, hp, key):
        del hp
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

    return trained(config, embedder, optimizer, learn, embedder.init, predict)
