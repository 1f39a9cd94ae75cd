"""Supervised learning: from scratch, on frozen features, or fine-tuned.

The three are one player and one loss. They differ in what the player may move (`trains`: 'head',
'encoder|head', 'encoder/stage3|head' ...) and in the values that the encoder starts from.
"""

from collections.abc import Callable

from tljax.losses.classification import accuracy, cross_entropy
from tljax.methods.auxiliary import Auxiliary
from tljax.methods.networks import Classifier
from tljax.types import Array, LossFn, Method, Params, Phase, Player, Spec


def build(config, spec: Spec, optimizer, auxiliary: float = 0.0) -> Method:
    """The method of one player named 'model' on the labelled stream 'source'.

    Args:
      config: the run's config: net, head, trains, steps.
      spec: what the data are.
      optimizer: steps -> (hp -> optax transformation); see tljax.optimizers.build.
      auxiliary: weight of the losses of the net's auxiliary heads, which are trained too, and
        never predict: 0.3 in GoogLeNet's paper, 0.4 is usual for Inception V3. 0: there are none.
        config.init.load names what they take of published ones: 'encoder|aux*/conv|aux*/fc1'.

    Raises:
      ValueError: as `Auxiliary.build`.
    """
    classifier = Classifier.build(config, spec)
    phase = source_phase('train', config, classifier, optimizer, config.steps)
    method = Method(
        init=classifier.init,
        phases=(phase,),
        predict=lambda params, mutable, images: classifier(params, mutable, images)[0],
    )
    if not auxiliary:
        return method
    aside = Auxiliary.build(classifier, spec, auxiliary)
    trains = '|'.join((config.trains, *aside.heads))
    player = phase.players[0]._replace(trains=trains, loss=aside.loss)
    return method._replace(init=aside.init, phases=(phase._replace(players=(player,)),))


def source_phase(name: str, config, classifier: Classifier, optimizer, steps: int) -> Phase:
    """So many steps of the player 'model', who classifies the stream 'source'."""
    return Phase(name, steps, (Player('model', config.trains, loss(classifier), optimizer(steps)),))


def loss(
    classifier: Classifier, seen: Callable[[Params, Array], Array] = lambda params, images: images
) -> LossFn:
    """The cross entropy of the stream 'source', with the metric 'accuracy'.

    Args:
      classifier: of the images.
      seen: (params, images of the stream) -> what the classifier sees of them.
    """

    def classify(params, mutable, batch, hp, key):
        images, label = batch['source']['image'], batch['source']['label']
        out, mutable = classifier(params, mutable, seen(params, images), key)
        value = cross_entropy(out['logits'], label, hp['label_smoothing'])
        return value, ({'accuracy': accuracy(out['logits'], label)}, mutable)

    return classify
