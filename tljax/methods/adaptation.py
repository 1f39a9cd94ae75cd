"""What the methods of unsupervised domain adaptation share: both domains through one network."""

import jax
import jax.numpy as jnp

from tljax.data.streams import unit
from tljax.methods.networks import Classifier
from tljax.types import Array, Batch, Key, Mutable, Params, Scalar


def both(
    classifier: Classifier,
    params: Params,
    mutable: Mutable,
    batch: Batch,
    key: Key,
    together: bool = True,
) -> tuple[dict[str, Array], dict[str, Array], Mutable]:
    """What the classifier makes of the streams 'source' and 'target'.

    Args:
      classifier: the network of both domains.
      params: by role.
      mutable: by role.
      batch: with the streams 'source' and 'target'.
      key: of dropout.
      together: one batch of both domains, which then share batch statistics; else one after the
        other, each normalised by its own.

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
    source, mutable = classifier(params, mutable, images[0], keys[0])
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
