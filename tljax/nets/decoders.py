"""Decoders: features [N, D] -> images [N, H, W, C]."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from tljax.nets.lowering import Conv


class Decoder(nn.Module):
    """A dense layer to a small map, convolutions that are upsampled, and one that makes pixels.

    Each of the `widths` is a convolution with ReLU at its own side, then doubled by repeating
    pixels; the last convolution is linear, so that black and white are within reach.

    Reference: Ghifary et al., 2016, arXiv:1607.03516: the decoder mirrors the encoder, with
    upsampling in place of pooling.

    Attributes:
      image: [H, W, C] of the output.
      widths: channels of the map and of each convolution, from small to large sides.
      kernel: side of their kernels.
    """

    image: tuple[int, int, int]
    widths: tuple[int, ...] = (32, 16)
    kernel: int = 5

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """features: [N, D] -> [N, H, W, C]."""
        height, width, channels = self.image
        factor = 2 ** len(self.widths)
        sides = (-(-height // factor), -(-width // factor))
        x = nn.relu(nn.Dense(sides[0] * sides[1] * self.widths[0], name='dense')(features))
        x = x.reshape(-1, *sides, self.widths[0])
        kernel = (self.kernel, self.kernel)
        for i, size in enumerate(self.widths, start=1):
            x = upsampled(nn.relu(Conv(size, kernel, name=f'conv{i}')(x)))
        return Conv(channels, kernel, name='pixels')(x[:, :height, :width])


def upsampled(x: Array) -> Array:
    """Every pixel four times: [N, H, W, C] -> [N, 2 H, 2 W, C]."""
    return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
