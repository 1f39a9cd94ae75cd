"""Losses between a model and its adversaries: discriminators, critics and second classifiers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from tljax.types import Array, Scalar


def domain_bce(source: Array, target: Array, weights: tuple[Array, Array] | None = None) -> Scalar:
    """The binary cross entropy of a discriminator, for which source is 1 and target 0.

    With d = sigmoid(logits): -1/2 [sum_i v_i log d(s_i) + sum_j w_j log(1 - d(t_j))], weights
    normalised to sum v = 1 and sum w = 1. Both domains count the same whatever their batches.

    Ganin et al. 2016, "Domain-adversarial training of neural networks", JMLR 17, section 4 (with a
    sum over domains where this has their mean).

    Args:
      source: [N] logits.
      target: [M] logits.
      weights: [N] and [M] weights, of any sum; None: all equal.
    """
    v, w = weights or (jnp.ones_like(source), jnp.ones_like(target))
    return (_mean(jax.nn.softplus(-source), v) + _mean(jax.nn.softplus(target), w)) / 2


def _mean(values: Array, weights: Array) -> Scalar:
    return (values * weights).sum() / weights.sum()


def inverted_bce(target: Array) -> Scalar:
    """What an encoder minimises that is to pass for the source: -mean_j log d(t_j).

    The cross entropy with inverted labels: Goodfellow et al. 2014, section 3; Tzeng et al. 2017,
    "Adversarial discriminative domain adaptation", section 3.

    Args:
      target: [M] logits of the discriminator, as in `domain_bce`.
    """
    return jax.nn.softplus(-target).mean()


def domain_accuracy(source: Array, target: Array) -> Scalar:
    """The share that a discriminator gets right, as the mean over both domains; chance is 1/2.

    Args:
      source: [N] logits.
      target: [M] logits.
    """
    return ((source > 0).mean(dtype=jnp.float32) + (target <= 0).mean(dtype=jnp.float32)) / 2


def classifier_discrepancy(logits: Array, other: Array) -> Scalar:
    """How far two classifiers disagree: mean over examples of 1/C sum_c |p_c - q_c|.

    p and q are their softmax outputs. Saito et al. 2018, "Maximum classifier discrepancy for
    unsupervised domain adaptation", section 3.

    Args:
      logits: [N, C] of one classifier.
      other: [N, C] of the other.
    """
    return jnp.abs(jax.nn.softmax(logits) - jax.nn.softmax(other)).mean()


def critic_distance(source: Array, target: Array) -> Scalar:
    """mean_i f(s_i) - mean_j f(t_j): Wasserstein-1 for the best f of Lipschitz constant 1.

    Shen et al. 2018, "Wasserstein distance guided representation learning for domain adaptation",
    section 4.

    Args:
      source: [N] values of the critic f.
      target: [M] values of the critic f.
    """
    return source.mean() - target.mean()


def gradient_penalty(critic: Callable[[Array], Array], points: Array) -> Scalar:
    """mean_i (|grad f(x_i)| - 1)^2.

    Gulrajani et al. 2017, "Improved training of Wasserstein GANs", section 4.

    Args:
      critic: f: [N, D] -> [N], each value of its own row alone.
      points: x, [N, D].
    """
    gradient = jax.grad(lambda x: critic(x).sum())(points)
    # The root has no gradient at 0, where a critic of dead units is.
    norm = jnp.sqrt((gradient**2).sum(-1) + 1e-12)
    return ((norm - 1) ** 2).mean()
