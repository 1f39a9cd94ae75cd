"""Predictions without labels: entropy, balance and confusion of classes, pseudo-labels."""

import jax
import jax.numpy as jnp

from tljax.types import Array, Scalar


def entropy(logits: Array) -> Array:
    """H(p) = -sum_c p_c log p_c of every example, in nats, with p = softmax(logits).

    Args:
      logits: [..., C].

    Returns:
      [...].
    """
    log = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -(jnp.exp(log) * log).sum(-1)


def information_maximisation(logits: Array, balance: float = 1.0) -> Scalar:
    """mean_i H(p_i) - b H(mean_i p_i): sure of every example, and all classes alike.

    Liang et al. 2020, "Do we really need to access the source data?", section 3.2 (with b = 1).
    b = 0 leaves entropy minimisation: Grandvalet and Bengio 2004.

    Args:
      logits: [N, C].
      balance: b, how much an even spread over the classes counts.
    """
    mean = jax.nn.softmax(logits.astype(jnp.float32)).mean(0)
    spread = -(mean * jnp.log(jnp.maximum(mean, 1e-12))).sum()
    return entropy(logits).mean() - balance * spread


def entropy_weights(logits: Array) -> Array:
    """1 + exp(-H(p)) of every example: the surer, the heavier, without a gradient.

    Long et al. 2018, "Conditional adversarial domain adaptation", section 3.3.

    Args:
      logits: [N, C].

    Returns:
      [N] in (1, 2].
    """
    return jax.lax.stop_gradient(1.0 + jnp.exp(-entropy(logits)))


def class_confusion(logits: Array, temperature: float = 2.5) -> Scalar:
    """Minimum class confusion: 1/C sum_c sum_{c' != c} K_cc'.

    With P = softmax(logits / T) [N, C], weights W_i = N (1 + exp(-H(P_i))) / sum_j (1 +
    exp(-H(P_j))), which have no gradient, and the confusion P^T diag(W) P with its rows normalised
    to sum 1: K.

    Jin et al. 2020, "Minimum class confusion for versatile domain adaptation", section 3.2.

    Args:
      logits: [N, C].
      temperature: T.
    """
    scaled = logits.astype(jnp.float32) / temperature
    weights = entropy_weights(scaled)
    weights = weights / weights.mean()
    log = jax.nn.log_softmax(scaled)
    # A row of K does not depend on the scale of its class: that of its likeliest example keeps a
    # class that nothing is taken for from 0 / 0.
    scale = jnp.exp(log - jax.lax.stop_gradient(log.max(0)))
    confusion = scale.T @ (weights[:, None] * jnp.exp(log))
    confusion = confusion / confusion.sum(1, keepdims=True)
    return (confusion.sum() - jnp.trace(confusion)) / len(confusion)


def aligned_pseudo_labels(
    source: Array, target: Array, threshold: float = 0.9
) -> tuple[Array, Array]:
    """Labels of the target, spread over the classes as on the source, and which are sure enough.

    With p = softmax(source) and q = softmax(target), the label of an example is

        y = normalise(q mean_i(p_i) / mean_j(q_j))

    and it counts if max_c y_c >= tau mean_i(max_c p_ic): "distribution alignment" and "relative
    confidence threshold" of Berthelot et al. 2022, arXiv:2106.04732. Neither has a gradient.

    Args:
      source: [N, C] logits of labelled examples.
      target: [M, C] logits.
      threshold: tau.

    Returns:
      [M, C] that sum to 1, and [M] 1.0 or 0.0.
    """
    p, q = (jax.nn.softmax(jax.lax.stop_gradient(x).astype(jnp.float32)) for x in (source, target))
    aligned = q * p.mean(0) / jnp.maximum(q.mean(0), 1e-6)
    aligned = aligned / aligned.sum(1, keepdims=True)
    sure = aligned.max(1) >= threshold * p.max(1).mean()
    return aligned, sure.astype(jnp.float32)
