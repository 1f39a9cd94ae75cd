"""Source hypothesis transfer, without the source's data: Liang et al. 2020, arXiv:2002.08546.

A classifier of the source; then, with its head fixed and the stream 'source' no longer looked at,
the encoder makes the target fit the head: sure of each example, all classes alike, and true to
pseudo-labels from clusters of the whole target.

As there: information maximisation, the two rounds of clusters, a frozen head, the optimizer begun
anew. What differs, from the paper and the code that its authors released for digits: there the
encoder ends in a bottleneck of 256 with batch norm and without ReLU, the head's weights are
normalised, clusters see the features with a constant 1 behind them, target images are not
augmented, the source's classifier is the one that was best on its test set, and both phases are 30
epochs long. Their Nesterov momentum, weight decay (1e-3) and rate (0.01, annealed in each phase)
are settings of `configs/adapt.py`.
"""

import jax
import jax.numpy as jnp

from tljax.data.streams import unit
from tljax.losses.classification import accuracy, cross_entropy
from tljax.losses.entropy import information_maximisation
from tljax.methods.adaptation import beyond, check_source_share, check_streams
from tljax.methods.networks import Classifier
from tljax.methods.supervised import source_phase
from tljax.types import Array, Key, Method, Phase, Player, Spec

REFRESHES = 15


def build(
    config,
    spec: Spec,
    optimizer,
    *,
    source_share: float = 0.5,
    adapts: str = '',
    pseudo: float = 0.3,
    every: int = 0,
) -> Method:
    """Phases 'source' and 'target', each of a player 'model'.

    The source's labels are smoothed by hparams.label_smoothing (0.1 in the paper). `mutable` holds
    the pseudo-labels, 'pseudo_labels', one for every row of the target.

    Args:
      config: the run's config: net, head, trains (for the source), steps (of both phases).
      spec: what the data are.
      optimizer: steps -> (hp -> optax transformation).
      source_share: of the steps, for the source; 0 where `init.from` gives a classifier of it.
      adapts: pattern of what moves for the target; '': what `trains` names of the encoder.
      pseudo: weight of the pseudo-labels' cross entropy, times `hparams.weight`; the paper's is
        0.1 for digits.
      every: steps between new pseudo-labels; 0: a fifteenth of those for the target, as in the
        authors' code for objects, for an epoch (theirs for digits) may be longer than all of them.
    """
    check_streams(config)
    check_source_share(source_share)
    classifier = Classifier.build(config, spec)
    rows = spec.rows.get('target', 0)

    def init(key: Key, spec: Spec):
        params, mutable = classifier.init(key, spec)
        return params, {**mutable, 'pseudo_labels': jnp.zeros(rows, jnp.int32)}

    def relabel(params, mutable, over, hp, key):
        del hp, key

        def look(batch):
            out, _ = classifier(params, mutable, batch['image'])
            return out | {name: batch[name] for name in ('index', 'valid')}

        seen = over('target', look)
        label = clusters(seen['features'], seen['logits'], seen['valid'])
        row = jnp.where(seen['valid'], seen['index'], rows)  # what is not drawn from has no row
        found = mutable['pseudo_labels'].at[row].set(label, mode='drop')
        return params, {**mutable, 'pseudo_labels': found}

    def fit(params, mutable, batch, hp, key):
        target = batch['target']
        out, mutable = classifier(params, mutable, unit(target['image']), key)
        label = mutable['pseudo_labels'][target['index']]
        value = information_maximisation(out['logits'])
        value += hp['weight'] * pseudo * cross_entropy(out['logits'], label)
        return value, ({'agreement': accuracy(out['logits'], label)}, mutable)

    before = round(source_share * config.steps)
    steps = config.steps - before
    player = Player(
        'model', adapts or beyond(config, spec, classifier, 'head'), fit, optimizer(steps)
    )
    every = every or -(-steps // REFRESHES) or 1
    target = Phase('target', steps, (player,), enter=relabel, refresh=relabel, every=every)
    source = source_phase('source', config, classifier, optimizer, before)
    return Method(
        init=init,
        phases=(source, target) if before else (target,),
        predict=lambda *args: classifier(*args)[0],
    )


def clusters(features: Array, logits: Array, valid: Array) -> Array:
    """The nearest centroid of every example: section 3.2, "self-supervised pseudo-labelling".

    Centroids are the means of the features weighted by the predicted probabilities; examples go to
    the one of the largest cosine; centroids are made once more, as the plain means of their
    examples, and examples go to the nearest again. A class that has no example is out.

    Args:
      features: [N, D].
      logits: [N, C].
      valid: [N] bool; others have no part in the centroids.

    Returns:
      [N] int32.
    """
    classes = logits.shape[-1]
    unit_of = lambda x: x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-8)
    directions, weight = unit_of(features), valid[:, None].astype(jnp.float32)

    def nearest(members, among):
        """members: [N, C], how much each example belongs to each class; among: [C] bool."""
        cosine = directions @ unit_of((members * weight).T @ directions).T
        return jnp.argmax(jnp.where(among, cosine, -2.0), axis=-1)

    def count(label):
        members = jax.nn.one_hot(label, classes)
        return members, (members * weight).sum(0) > 0

    _, among = count(jnp.argmax(logits, -1))
    label = nearest(jax.nn.softmax(logits), among)
    return nearest(*count(label)).astype(jnp.int32)
