"""Beside the source's loss, one of the target's predictions alone: to be sure, and not confused."""

from collections.abc import Callable

import jax.numpy as jnp

from tljax.losses import entropy as losses
from tljax.losses.classification import accuracy, cross_entropy
from tljax.methods.adaptation import both, check_streams, one_player, ramp
from tljax.methods.networks import Classifier
from tljax.types import Array, Method, Scalar, Spec


def entropy(
    config,
    spec: Spec,
    optimizer,
    *,
    balance: float = 1.0,
    together: bool = True,
    ramped: bool = True,
) -> Method:
    """Entropy minimisation with class balance; see `losses.entropy.information_maximisation`.

    Args:
      config: the run's config: net, head, trains, steps.
      spec: what the data are.
      optimizer: steps -> (hp -> optax transformation).
      balance: how much an even spread over the classes counts; 0: entropy alone.
      together: one batch of both domains, normalised together, or one after the other.
      ramped: whether the weight grows with progress.
    """
    loss = lambda logits: losses.information_maximisation(logits, balance)
    return _method(config, spec, optimizer, loss, together, ramped)


def mcc(
    config,
    spec: Spec,
    optimizer,
    *,
    temperature: float = 2.5,
    together: bool = True,
    ramped: bool = False,
) -> Method:
    """Minimum class confusion: Jin et al. 2020, arXiv:1912.03699, section 3.

    Args:
      config: the run's config: net, head, trains, steps.
      spec: what the data are.
      optimizer: steps -> (hp -> optax transformation).
      temperature: see `losses.entropy.class_confusion`.
      together: as of `entropy`.
      ramped: as of `entropy`.
    """
    loss = lambda logits: losses.class_confusion(logits, temperature)
    return _method(config, spec, optimizer, loss, together, ramped)


def _method(
    config,
    spec: Spec,
    optimizer,
    loss: Callable[[Array], Scalar],
    together: bool,
    ramped: bool,
) -> Method:
    """The player 'model' minimises cross entropy + weight * loss(the target's logits)."""
    check_streams(config)
    classifier = Classifier.build(config, spec)

    def model(params, mutable, batch, hp, key):
        source, target, mutable = both(classifier, params, mutable, batch, key, together)
        label = batch['source']['label']
        weight = hp['weight'] * (ramp(hp['progress']) if ramped else 1.0)
        value = cross_entropy(source['logits'], label, hp['label_smoothing'])
        value += weight * loss(target['logits'])
        found = {
            'accuracy': accuracy(source['logits'], label),
            'target_entropy': jnp.mean(losses.entropy(target['logits'])),
        }
        return value, (found, mutable)

    return one_player(config, classifier, model, optimizer)
