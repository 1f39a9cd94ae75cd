"""Image to image, and image to how real its patches look: the nets of image translation."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from tljax.nets.decoders import upsampled
from tljax.nets.lowering import Conv

NORMAL = nn.initializers.normal(0.02)  # as CycleGAN


class Generator(nn.Module):
    """An encoder-decoder: strided convolutions, residual blocks, upsampled convolutions.

    Layers but the last are normalised over each image's own pixels (instance normalisation), so an
    image is translated in the same way in any batch.

    Reference: Zhu et al., 2017, arXiv:1703.10593, appendix; Johnson et al., 2016, arXiv:1603.08155.
    Here the first kernel is smaller and upsampling repeats pixels, which leaves no checkerboard.

    Attributes:
      channels: of the images.
      widths: channels of the first convolution and of those of stride 2 after it.
      blocks: residual blocks at the smallest side.
      kernel: side of the first and the last kernel.
    """

    channels: int
    widths: tuple[int, ...] = (16, 32, 64)
    blocks: int = 2
    kernel: int = 5

    @nn.compact
    def __call__(self, image: Array) -> Array:
        """image: [N, H, W, C] in [-1, 1] -> the same."""
        outer, (height, width) = (self.kernel, self.kernel), image.shape[1:3]
        x = self.layer('first', self.widths[0], image, outer)
        for i, size in enumerate(self.widths[1:], start=1):
            x = self.layer(f'down{i}', size, x, stride=2)
        for i in range(1, self.blocks + 1):
            y = self.layer(f'block{i}_conv1', self.widths[-1], x)
            x = x + self.layer(f'block{i}_conv2', self.widths[-1], y, relu=False)
        for i, size in enumerate(reversed(self.widths[:-1]), start=1):
            x = self.layer(f'up{i}', size, upsampled(x))
        x = x[:, :height, :width]
        return jnp.tanh(Conv(self.channels, outer, kernel_init=NORMAL, name='pixels')(x))

    def layer(self, name, width, x, kernel=(3, 3), stride=1, relu=True):
        options = {'strides': stride, 'use_bias': False, 'kernel_init': NORMAL}
        x = Conv(width, kernel, **options, name=name)(x)
        x = nn.InstanceNorm(name=f'{name}_norm')(x)
        return nn.relu(x) if relu else x


class PatchDiscriminator(nn.Module):
    """How real each patch of an image looks: convolutions of stride 2, then one of a channel.

    Reference: Isola et al., 2017, arXiv:1611.07004, section 3.2.2; all layers but the first and
    the last are normalised over each image's own pixels.

    Attributes:
      widths: channels of the convolutions of stride 2.
      kernel: side of their kernels.
    """

    widths: tuple[int, ...] = (32, 64)
    kernel: int = 4

    @nn.compact
    def __call__(self, image: Array) -> Array:
        """image: [N, H, W, C] in [-1, 1] -> scores [N, h, w], without bounds."""
        x, sides = image, (self.kernel, self.kernel)
        for i, width in enumerate(self.widths, start=1):
            options = {'strides': 2, 'use_bias': i == 1, 'kernel_init': NORMAL}
            x = Conv(width, sides, **options, name=f'conv{i}')(x)
            x = nn.InstanceNorm(name=f'norm{i}')(x) if i > 1 else x
            x = jax.nn.leaky_relu(x, 0.2)
        return Conv(1, sides, kernel_init=NORMAL, name='scores')(x)[..., 0]
