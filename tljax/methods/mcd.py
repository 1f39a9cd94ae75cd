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
      optimizer: (steps, moves a step) -> (hp -> optax transformation).
      inner: k.
      together: one batch of both domains in B, normalised together, or one after the other; all
        running statistics are then the target's alone, in A too.
    """
    check_streams(config)
    classifier = Classifier.build(config, spec)

    def init(key: Key, spec: Spec):
        keys = jax.random.split(key)
        params, mutable = classifier.init(keys[0], spec)
        other, others = classifier.init(keys[1], spec)
        return {**params, 'head2': other['head']}, {**mutable, 'head2': others['head']}

    def network(params, mutable, images, key=None):
        """Both heads' logits: the classifier's own, and 'logits2'."""
        keys = (None, None) if key is None else jax.random.split(key)
        out, mutable = classifier(params, mutable, images, keys[0])
        features = out['features']
        logits, mutable = apply(classifier.head, 'head2', params, mutable, features, key=keys[1])
        return {**out, 'logits2': logits}, mutable

    def classify(source, batch, hp):
        """The cross entropy of both heads."""
        label, smoothing = batch['source']['label'], hp['label_smoothing']
        logits = source['logits'], source['logits2']
        value = sum(cross_entropy(one, label, smoothing) for one in logits)
        return value, {'accuracy': accuracy(sum(logits), label)}

    def disagree(target, hp):
        apart = classifier_discrepancy(target['logits'], target['logits2'])
        return hp['weight'] * apart, {'discrepancy': apart}

    def model(params, mutable, batch, hp, key):
        source, moved = network(params, mutable, unit(batch['source']['image']), key)
        value, found = classify(source, batch, hp)
        return value, (found, moved if together else mutable)

    def heads(params, mutable, batch, hp, key):
        source, target, mutable = both(network, params, mutable, batch, key, together)
        value, found = classify(source, batch, hp)
        apart, more = disagree(target, hp)
        return value - apart, (found | more, mutable)

    def encoder(params, mutable, batch, hp, key):
        target, mutable = network(params, mutable, unit(batch['target']['image']), key)
        value, found = disagree(target, hp)
        return value, (found, mutable)

    def predict(params, mutable, images):
        out, _ = network(params, mutable, images)
        return {**out, 'logits': (out['logits'] + out.pop('logits2')) / 2}

    rule = optimizer(config.steps)
    a = Player('model', f'{config.trains}|head2', model, rule)
    b = Player('heads', f'{config.trains}|head2|!encoder', heads, rule)
    rest, often = beyond(config, spec, classifier, 'head', 'head2'), optimizer(config.steps, inner)
    c = Player('encoder', rest, encoder, often)
    return Method(init, (Phase('train', config.steps, (a, b, *[c] * inner)),), predict)
