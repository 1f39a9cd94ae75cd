"""Embeddings in which classes that were never seen lie apart: one-shot recognition.

One player trains the encoder on structured batches of the stream 'source': 'pairs:N' (siamese,
siamese_contrastive, triplet, supervised_contrastive) or 'episode:WAYxSHOTxQUERY' (prototypical,
matching, infonce, siamese, triplet, supervised_contrastive). A last phase, without steps, then
makes the head the nearest mean of the training classes. All are `build(config, spec, optimizer)`;
their 'features' are compared by Euclidean distance, those of siamese by the sum of absolute
differences.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from tljax.data import episodes
from tljax.data.streams import unit
from tljax.kernels import unit_length
from tljax.losses import metric
from tljax.losses.classification import accuracy
from tljax.methods.adaptation import beyond
from tljax.methods.networks import Classifier
from tljax.types import Array, Method, Phase, Player, Scalar, Spec, solve

SIMILARITY = 'similarity'  # the role of Koch's weights

Loss = Callable[[Array, Array, Mapping], tuple[Scalar, Mapping[str, Scalar]]]


def prototypical(config, spec: Spec, optimizer) -> Method:
    """Prototypical networks: Snell et al. 2017, arXiv:1703.05175, eq. 2."""
    return _episodic(config, spec, optimizer, metric.prototypical_logits, lambda x: x)


def matching(config, spec: Spec, optimizer, *, scale: float = 10.0) -> Method:
    """Matching networks: Vinyals et al. 2016, arXiv:1606.04080, without full context embedding.

    Args:
      scale: of the cosines; see `losses.metric.matching_logits`.
    """
    logits = lambda support, query: metric.matching_logits(support, query, scale)
    return _episodic(config, spec, optimizer, logits, unit_length)


def siamese(config, spec: Spec, optimizer) -> Method:
    """Koch et al. 2015: a pair is of one class with probability sigmoid(b - sum_d a_d |x_d - y_d|).

    a_d = softplus(w_d) is never negative, where the paper leaves the sign free: so the logit falls
    with a distance, and a threshold on the one is a threshold on the other. 'features' are a * x.
    With episodes in place of pairs every query makes a pair with every support, and pairs of one
    class count as much together as all others.
    """
    draw = _drawn(config, episodes.Pairs, episodes.Episode)
    first = draw.pairs if isinstance(draw, episodes.Pairs) else draw.way * draw.shot

    def loss(features, label, params):
        x, y, of_x, of_y = features[:first], features[first:], label[:first], label[first:]
        if isinstance(draw, episodes.Episode):
            y, of_y = y[:, None], of_y[:, None]
        same = of_x == of_y
        own = params[SIMILARITY]
        weights = -jax.nn.softplus(own['weights'])
        logits = metric.weighted_l1(x, y, weights, own['bias'])
        right = metric.balanced((logits > 0) == same, same)
        return metric.pair_cross_entropy(logits, same), {'accuracy': right}

    scaled = lambda x, params: jax.nn.softplus(params[SIMILARITY]['weights']) * x
    return _built(config, spec, optimizer, loss, scaled, similarity=True)


def siamese_contrastive(config, spec: Spec, optimizer, *, margin: float = 1.0) -> Method:
    """Hadsell et al. 2006, eq. 4, on features of unit length.

    Args:
      margin: in (0, 2].
    """
    pairs = _drawn(config, episodes.Pairs).pairs

    def loss(features, label, params):
        x, y = jnp.split(unit_length(features), [pairs])
        same = label[:pairs] == label[pairs:]
        return metric.contrastive(x, y, same, margin), {}

    return _built(config, spec, optimizer, loss, _unit)


def triplet(config, spec: Spec, optimizer, *, margin: float = 0.2, mining: str = 'hard') -> Method:
    """Triplets mined in the batch, on features of unit length; see `losses.metric.triplet`.

    Args:
      margin: by which negatives are to be farther.
      mining: 'hard' or 'semi'.
    """
    if mining not in ('hard', 'semi'):
        raise ValueError(f"options.mining={mining!r}: there are 'hard' and 'semi'")

    def loss(features, label, params):
        return metric.triplet(unit_length(features), label, margin, mining), {}

    _drawn(config, episodes.Episode, episodes.Pairs)
    return _built(config, spec, optimizer, loss, _unit)


def infonce(
    config, spec: Spec, optimizer, *, temperature: float = 0.1, similarity: str = 'cosine'
) -> Method:
    """InfoNCE: van den Oord et al. 2018, eq. 4, on episodes with one support and one query.

    Args:
      temperature: of the similarities; 1 for the N-pair loss.
      similarity: 'cosine', or 'dot' for the N-pair loss of Sohn 2016; see `losses.metric.info_nce`.
        'features' are of unit length with the one and as they are with the other.
    """
    if similarity not in ('cosine', 'dot'):
        raise ValueError(f"options.similarity={similarity!r}: there are 'cosine' and 'dot'")
    draw = _drawn(config, episodes.Episode)
    if (draw.shot, draw.query) != (1, 1):
        raise ValueError("infonce: one positive an anchor; draw='episode:WAYx1x1', such as 64x1x1")

    def loss(features, label, params):
        x, y = jnp.split(features, [draw.way])
        return metric.info_nce(x, y, temperature, similarity), {}

    shown = _unit if similarity == 'cosine' else lambda features, params: features
    return _built(config, spec, optimizer, loss, shown)


def supervised_contrastive(config, spec: Spec, optimizer, *, temperature: float = 0.1) -> Method:
    """Khosla et al. 2020, arXiv:2004.11362, eq. 2, without a projection behind the features.

    Args:
      temperature: of the cosines.
    """
    _drawn(config, episodes.Episode, episodes.Pairs)

    def loss(features, label, params):
        return metric.supervised_contrastive(features, label, temperature), {}

    return _built(config, spec, optimizer, loss, _unit)


def _unit(features: Array, params) -> Array:
    return unit_length(features)


def _episodic(config, spec, optimizer, logits: Callable, shown: Callable) -> Method:
    """The cross entropy of an episode's queries by what `logits(support, query)` says."""
    draw = _drawn(config, episodes.Episode)

    def loss(features, label, params):
        support = features[: draw.way * draw.shot].reshape(draw.way, draw.shot, -1)
        found = logits(support, features[draw.way * draw.shot :])
        local = jnp.repeat(jnp.arange(draw.way), draw.query)
        value = -jnp.take_along_axis(jax.nn.log_softmax(found), local[:, None], 1).mean()
        return value, {'accuracy': accuracy(found, local)}

    return _built(config, spec, optimizer, loss, lambda features, params: shown(features))


def _drawn(config, *kinds: type):
    """What the stream 'source' draws.

    Raises:
      ValueError: it draws something that the method can't use.
    """
    text = config.data.streams.source.draw
    draw = episodes.parse(text) if text else None
    if not isinstance(draw, kinds):
        forms = {episodes.Episode: "'episode:20x1x5'", episodes.Pairs: "'pairs:64'"}
        wanted = ' or '.join(forms[kind] for kind in kinds)
        raise ValueError(
            f'method {config.method!r} learns from other batches than '
            f'data.streams.source.draw={text!r}; set it to such as {wanted}'
        )
    return draw


def _built(
    config, spec: Spec, optimizer, loss: Loss, shown: Callable, similarity: bool = False
) -> Method:
    """The method of `loss(features, label, params) -> (value, metrics)`.

    `shown(features, params)` are the features that are compared afterwards.
    """
    if (head := config.head.to_dict()) != {'name': 'linear'}:
        raise ValueError(f'head={head}: the head is the nearest mean; leave it as it is')
    classifier = Classifier.build(config, spec)
    pattern = beyond(config, spec, classifier, 'head')

    def init(key, spec):
        params, mutable = classifier.init(key, spec)
        if similarity:
            # Logits begin near 0, where the loss is not flat, however many features there are.
            width = classifier.width(spec)
            own = {'weights': jnp.full(width, jnp.log(jnp.expm1(1 / width))), 'bias': jnp.ones(())}
            params, mutable = {**params, SIMILARITY: own}, {**mutable, SIMILARITY: {}}
        return params, mutable

    def step(params, mutable, batch, hp, key):
        del hp
        images = unit(batch['source']['image'])
        features, mutable = classifier.features(params, mutable, images, key)
        value, found = loss(features, batch['source']['label'], params)
        return value, (found, mutable)

    def embedded(params, mutable, inputs):
        return shown(classifier.features(params, mutable, inputs)[0], params)

    def enrol(params, mutable, over, hp, key):
        """The nearest mean as a linear head: 2 c.x - ||c||^2 is -||x - c||^2 + ||x||^2."""
        del hp, key

        def sums(batch):
            weights = jax.nn.one_hot(batch['label'], len(spec.classes)) * batch['valid'][:, None]
            return embedded(params, mutable, batch['image']), weights

        features, weights = over('source', sums)
        means = (weights.T @ features) / jnp.maximum(weights.sum(0), 1)[:, None]
        head = {'kernel': 2 * means.T, 'bias': -jnp.sum(means**2, 1)}
        return {**params, 'head': head}, mutable

    def predict(params, mutable, inputs):
        features = embedded(params, mutable, inputs)
        head = params['head']
        return {'logits': features @ head['kernel'] + head['bias'], 'features': features}

    own = f'{pattern}|{SIMILARITY}' if similarity else pattern
    player = Player('model', own, step, optimizer(config.steps))
    return Method(init, (Phase('train', config.steps, (player,)), solve('enrol', enrol)), predict)
