"""What the methods of unsupervised domain adaptation share: both domains through one network."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from tljax import partition
from tljax.data.streams import unit
from tljax.methods.networks import Classifier
from tljax.types import (
    Array,
    Batch,
    Key,
    LossFn,
    Method,
    Mutable,
    Params,
    Phase,
    Player,
    Scalar,
    Spec,
)


def check_streams(config) -> None:
    """Refuses a run without a stream 'target'."""
    streams = config.data.streams
    if 'target' not in streams:
        raise ValueError(
            f'method {config.method!r} adapts from the stream source to the stream target; '
            f'there is no data.streams.target, only {", ".join(streams)}'
        )


def check_no_weight(config) -> None:
    """Refuses a weight, or a sweep over weights, of a second loss where there is none.

    Raises:
      ValueError: hparams.weight is not 1, or members.weight has values.
    """
    weight, swept = config.hparams.weight, tuple(config.members.get('weight', ()))
    if weight != 1 or swept:
        found = f'members.weight={swept}' if swept else f'hparams.weight={weight}'
        raise ValueError(
            f'{found}: method {config.method!r} has no second loss to weigh, and its members would '
            'all be alike; leave it out'
        )


def check_source_share(share: float) -> None:
    """Refuses a share of the steps, for the source, that leaves none for the target.

    Raises:
      ValueError: it is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise ValueError(f'options.source_share is {share}; expected at least 0 and less than 1')


def beyond(config, spec: Spec, classifier: Classifier, *roles: str) -> str:
    """The pattern of what config.trains names outside some roles, of which something is to be left.

    Args:
      config: the run's config.
      spec: what the data are.
      classifier: whose parameters count.
      *roles: such as 'head'.

    Raises:
      ValueError: nothing is left for a player to move.
    """
    params, _ = jax.eval_shape(lambda: classifier.init(jax.random.key(0), spec))
    pattern = '|!'.join((config.trains, *roles))
    if not any(partition.matches(path, pattern) for path in partition.paths(params)):
        raise ValueError(
            f'method {config.method!r} adapts the encoder, of which trains={config.trains!r} '
            "leaves it nothing to move; name a part of it, as in trains='encoder|head'"
        )
    return pattern


def one_player(config, classifier: Classifier, loss: LossFn, optimizer) -> Method:
    """The method of a player 'model', who moves what `trains` names, and of the classifier.

    Args:
      config: the run's config: trains, steps.
      classifier: whose values are trained, and which predicts.
      loss: of the player.
      optimizer: steps -> (hp -> optax transformation).
    """
    player = Player('model', config.trains, loss, optimizer(config.steps))
    return Method(
        init=classifier.init,
        phases=(Phase('train', config.steps, (player,)),),
        predict=lambda params, mutable, images: classifier(params, mutable, images)[0],
    )


def both(
    classifier: Callable[..., tuple[dict[str, Array], Mutable]],
    params: Params,
    mutable: Mutable,
    batch: Batch,
    key: Key,
    together: bool = True,
) -> tuple[dict[str, Array], dict[str, Array], Mutable]:
    """What the classifier makes of the streams 'source' and 'target'.

    Args:
      classifier: the network of both domains: a `Classifier`, or what is called like one.
      params: by role.
      mutable: by role.
      batch: with the streams 'source' and 'target'.
      key: of dropout.
      together: one batch of both domains, which then share batch statistics; else one after the
        other, each normalised by its own. Running statistics, by which predictions are made, are
        then the target's: of both in turn they would fit neither, where the domains differ.

    Returns:
      'logits' [N, C] and 'features' [N, D] of the source, the same of the target, and the new
      statistics.
    """
    images = [unit(batch[name]['image']) for name in ('source', 'target')]
    if together:
        out, mutable = classifier(params, mutable, jnp.concatenate(images), key)
        count = len(images[0])
        parts = (
            {name: x[cut] for name, x in out.items()} for cut in (slice(count), slice(count, None))
        )
        return *parts, mutable
    keys = jax.random.split(key)
    source, _ = classifier(params, mutable, images[0], keys[0])
    target, mutable = classifier(params, mutable, images[1], keys[1])
    return source, target, mutable


def ramp(progress: Scalar, gamma: float = 10.0) -> Scalar:
    """The weight of an adaptation loss, from 0 to nearly 1: 2 / (1 + exp(-gamma p)) - 1.

    Ganin et al. 2016, "Domain-adversarial training of neural networks", section 5.2.2.

    Args:
      progress: p in [0, 1], which `tljax.train` puts among the hyper-parameters.
      gamma: how steep.
    """
    return 2.0 / (1.0 + jnp.exp(-gamma * progress)) - 1.0
