"""Losses of reconstruction and of image translation: arrays to scalars, no parameters."""

import jax
import jax.numpy as jnp

from tljax.losses.classification import cross_entropy
from tljax.types import Array, Scalar


def squared_error(image: Array, reconstruction: Array) -> Scalar:
    """Mean over examples, pixels and channels of (x - r)^2.

    Ghifary et al. 2016, arXiv:1607.03516, section 3, there summed over the pixels of an image.

    Args:
      image: x, [N, H, W, C] float.
      reconstruction: r, of the same shape.
    """
    return jnp.square(image - reconstruction).mean()


def absolute_error(image: Array, reconstruction: Array) -> Scalar:
    """Mean over examples, pixels and channels of |x - r|: cycle and identity losses.

    Zhu et al. 2017, arXiv:1703.10593, eq. 2 (cycle consistency) and section 5.2 (identity).

    Args:
      image: x, [N, H, W, C] float.
      reconstruction: r, of the same shape.
    """
    return jnp.abs(image - reconstruction).mean()


def least_squares(scores: Array, real: bool) -> Scalar:
    """Mean of (s - 1)^2 for what is to look real, of s^2 for what is not.

    Mao et al. 2017, arXiv:1611.04076, without the factor 1/2, as Zhu et al. 2017, section 4.

    Args:
      scores: s, of any shape.
      real: whether the images are real, or for a generator's loss, are to look so.
    """
    return jnp.square(scores - float(real)).mean()


def semantic_consistency(before: Array, after: Array) -> Scalar:
    """Mean over examples of -log softmax(after)_k, where k is the largest of `before`.

    What an image is taken for, it shall be taken for after translation. No gradient goes through
    `before`. Hoffman et al. 2018, arXiv:1711.03213, section 3.

    Args:
      before: [N, C] logits of the images.
      after: [N, C] logits of their translations.
    """
    label = jnp.argmax(jax.lax.stop_gradient(before), axis=-1)
    return cross_entropy(after, label)
