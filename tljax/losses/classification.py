"""Losses of classifiers: arrays to scalars, no parameters, no state."""

import jax.numpy as jnp
import optax

from tljax.types import Array, Scalar


def cross_entropy(logits: Array, label: Array, smoothing: float | Array = 0.0) -> Scalar:
    """Mean over examples of `cross_entropies`."""
    return cross_entropies(logits, label, smoothing).mean()


def cross_entropies(logits: Array, label: Array, smoothing: float | Array = 0.0) -> Array:
    """-sum_c q_c log softmax(logits)_c of each example, [N].

    q = (1 - s) onehot(label) + s / C, with smoothing s: Szegedy et al. 2016, section 7.

    Args:
      logits: [N, C] float.
      label: [N] int in [0, C).
      smoothing: s in [0, 1].
    """
    classes = logits.shape[-1]
    logits = logits.astype(jnp.float32)
    onehot = jnp.equal(label[:, None], jnp.arange(classes)).astype(jnp.float32)
    target = (1.0 - smoothing) * onehot + smoothing / classes
    return optax.softmax_cross_entropy(logits, target)


def accuracy(logits: Array, label: Array) -> Scalar:
    """The share of examples whose largest logit is the label's."""
    return (jnp.argmax(logits, axis=-1) == label).astype(jnp.float32).mean()
