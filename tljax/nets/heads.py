"""Heads: features [N, D] -> logits [N, C]."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from tljax.nets.norm import BatchNorm, Dropout


class Linear(nn.Module):
    """logits = features @ kernel + bias.

    Attributes:
      classes: width of the output.
      use_bias: whether there is a bias.
    """

    classes: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """features: [N, D] -> [N, classes]."""
        shape = (features.shape[-1], self.classes)
        logits = features @ self.param('kernel', nn.initializers.lecun_normal(), shape)
        if self.use_bias:
            logits = logits + self.param('bias', nn.initializers.zeros, (self.classes,))
        return logits


class MLPHead(nn.Module):
    """Dense layers with ReLU, then a linear one: dense1, dense2, ..., logits.

    Attributes:
      classes: width of the output.
      widths: of the hidden layers.
      dropout: rate after each hidden layer.
      norm: batch normalisation of the hidden layers, in place of their biases.
    """

    classes: int
    widths: tuple[int, ...] = (500,)
    dropout: float = 0.0
    norm: bool = False

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """features: [N, D] -> [N, classes]."""
        x = features
        for i, width in enumerate(self.widths, start=1):
            x = nn.Dense(width, use_bias=not self.norm, name=f'dense{i}')(x)
            x = nn.relu(BatchNorm(name=f'norm{i}')(x) if self.norm else x)
            x = Dropout(self.dropout, name=f'dropout{i}')(x)
        return nn.Dense(self.classes, name='logits')(x)


class Cosine(nn.Module):
    """logits[n, c] = scale * <f_n, w_c> / (|f_n| |w_c|).

    A zero vector has cosine 0 with everything, and finite gradients.

    Reference: Gidaris and Komodakis, 2018, arXiv:1804.09458, section 3.2 (with its learnable scale,
    there tau, of initial value 10); Chen et al., 2019, arXiv:1904.04232, Baseline++.

    Attributes:
      classes: width of the output.
      scale: initial value of the scale, or its value.
      learn_scale: whether `scale` is a parameter.
    """

    classes: int
    scale: float = 10.0
    learn_scale: bool = True

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """features: [N, D] -> [N, classes]."""
        shape = (features.shape[-1], self.classes)
        kernel = self.param('kernel', nn.initializers.lecun_normal(), shape)
        scale = self.scale
        if self.learn_scale:
            scale = self.param('scale', nn.initializers.constant(self.scale), ())
        return scale * (unit(features, axis=-1) @ unit(kernel, axis=0))


def unit(x: Array, axis: int, epsilon: float = 1e-12) -> Array:
    """x / |x| along an axis; zero for zero."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis, keepdims=True), epsilon))
