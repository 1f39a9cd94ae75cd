"""Maximum classifier discrepancy: Saito et al. 2018, arXiv:1712.02560, section 3.

Two heads that begin differently disagree where the target lies outside the source's support. They
are trained to disagree there as much as they can, and the encoder to let them agree.
"""

import jax

from tljax.data.streams import unit
from tljax.losses.adversarial import classifier_discrepancy
from tljax.losses.classification import accuracy, cross_entropy
from tljax.methods.adaptation import beyond, both, check_streams
from tljax.methods.networks import Classifier
from tljax.nets.apply import apply
from tljax.types import Key, Method, Phase, Player, Spec


def build(config, spec: Spec, optimizer, *, inner: int = 4, together: bool = False) -> Method:
    """A step is the paper's A, B and k times C, players in turn on one batch.

    A, 'model': all that `trains` names, and the second head, minimise the source's cross entropy of
    both heads. B, 'heads': the heads minimise that less the discrepancy on the target. C,
    'encoder': the rest of `trains` minimises the discrepancy. Each keeps its own optimizer's state.
    Prediction is by the mean of both heads' logits.

    Args:
      config: the run's config: net, head, trains, steps.
      spec: what the data are.
      optimizer: steps -> (hp -> optax transformation).
      inner: k.
      together: one batch of both domains in B, normalised together, or one after the other; the
        running statistics of the encoder and of the first head are then the target's alone, in A
        too. Those of norms in the second head are of all that it sees.
    """
    check_streams(config)
    classifier = Classifier.build(config, spec)

    def init(key: Key, spec: Spec):
        keys = jax.random.split(key)
        params, mutable = classifier.init(keys[0], spec)
        other, others = classifier.init(keys[1], spec)
        return {**params, 'head2': other['head']}, {**mutable, 'head2': others['head']}

    def second(out, params, mutable, key=None):
        """The second head's logits."""
        return apply(classifier.head, 'head2', params, mutable, out['features'], key=key)

    def classify(out, params, mutable, batch, hp, key):
        """The cross entropy of both heads on what the encoder made of the source."""
        logits, mutable = second(out, params, mutable, key)
        label, smoothing = batch['source']['label'], hp['label_smoothing']
        value = sum(cross_entropy(one, label, smoothing) for one in (out['logits'], logits))
        return value, {'accuracy': accuracy(out['logits'] + logits, label)}, mutable

    def model(params, mutable, batch, hp, key):
        keys = jax.random.split(key)
        out, moved = classifier(params, mutable, unit(batch['source']['image']), keys[0])
        mutable = moved if together else mutable
        value, found, mutable = classify(out, params, mutable, batch, hp, keys[1])
        return value, (found, mutable)

    def disagree(out, params, mutable, hp, key):
        logits, mutable = second(out, params, mutable, key)
        apart = classifier_discrepancy(out['logits'], logits)
        return hp['weight'] * apart, {'discrepancy': apart}, mutable

    def heads(params, mutable, batch, hp, key):
        keys = jax.random.split(key, 3)
        source, target, mutable = both(classifier, params, mutable, batch, keys[0], together)
        value, found, mutable = classify(source, params, mutable, batch, hp, keys[1])
        apart, more, mutable = disagree(target, params, mutable, hp, keys[2])
        return value - apart, (found | more, mutable)

    def encoder(params, mutable, batch, hp, key):
        keys = jax.random.split(key)
        out, mutable = classifier(params, mutable, unit(batch['target']['image']), keys[0])
        value, found, mutable = disagree(out, params, mutable, hp, keys[1])
        return value, (found, mutable)

    def predict(params, mutable, images):
        out, _ = classifier(params, mutable, images)
        logits, _ = second(out, params, mutable)
        return {**out, 'logits': (out['logits'] + logits) / 2}

    rule = optimizer(config.steps)
    a = Player('model', f'{config.trains}|head2', model, rule)
    b = Player('heads', f'{config.trains}|head2|!encoder', heads, rule)
    c = Player('encoder', beyond(config, spec, classifier, 'head', 'head2'), encoder, rule)
    return Method(init, (Phase('train', config.steps, (a, b, *[c] * inner)),), predict)
