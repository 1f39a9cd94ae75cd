"""Supervised learning: from scratch, on frozen features, or fine-tuned.

The three are one player and one loss. They differ in what the player may move (`trains`: 'head',
'encoder|head', 'encoder/stage3|head' ...) and in the values that the encoder starts from.
"""

from tljax.losses.classification import accuracy, cross_entropy
from tljax.methods.networks import Classifier
from tljax.types import Method, Phase, Player, Spec


def build(config, spec: Spec, optimizer) -> Method:
    """The method of one player named 'model' on the labelled stream 'source'.

    Args:
      config: the run's config: net, head, trains, steps.
      spec: what the data are.
      optimizer: steps -> (hp -> optax transformation); see tljax.optimizers.build.
    """
    classifier = Classifier.build(config, spec)

    def loss(params, mutable, batch, hp, key):
        images, label = batch['source']['image'], batch['source']['label']
        out, mutable = classifier(params, mutable, images, key)
        value = cross_entropy(out['logits'], label, hp['label_smoothing'])
        return value, ({'accuracy': accuracy(out['logits'], label)}, mutable)

    player = Player('model', config.trains, loss, optimizer(config.steps))
    return Method(
        init=classifier.init,
        phases=(Phase('train', config.steps, (player,)),),
        predict=lambda params, mutable, images: classifier(params, mutable, images)[0],
    )
