"""The residual networks of CIFAR-10 with named endpoints: shortcuts without parameters."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from tljax.nets.backbone import Input, run
from tljax.nets.blocks import IMAGENET, ConvNorm, global_pool, sized

# Layers -> blocks in each of the three stages: 6n + 2.
SIZES = {20: 3, 32: 5, 44: 7, 56: 9}
WIDTHS = (16, 32, 64)


class Block(nn.Module):
    """relu(shortcut(x) + branch(x)), the branch of two 3x3 convolutions.

    Option A: where shapes change, the shortcut takes every second pixel and pads new channels with
    zeros, half before and half after the old ones.

    Attributes:
      width: output channels.
      stride: of the first convolution.
      dtype: of the computation.
    """

    width: int
    stride: int = 1
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, C] -> [N, H / stride, W / stride, width]."""
        y = ConvNorm(self.width, 3, self.stride, dtype=self.dtype, name='unit1')(x)
        y = ConvNorm(self.width, 3, activation='none', dtype=self.dtype, name='unit2')(y)
        if x.shape != y.shape:
            new = self.width - x.shape[-1]
            before = self.width // 4
            x = x[:, :: self.stride, :: self.stride]
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (before, new - before)))
        return nn.relu(x.astype(y.dtype) + y)


class Stage(nn.Module):
    """Blocks of one width: block1, block2, ...; the first one has the stride."""

    width: int
    blocks: int
    stride: int
    dtype: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, C] -> [N, H / stride, W / stride, width]."""
        for i in range(self.blocks):
            stride = self.stride if i == 0 else 1
            x = Block(self.width, stride, self.dtype, name=f'block{i + 1}')(x)
        return x


class CifarResNet(nn.Module):
    """ResNet-20, 32, 44 or 56 for images of 32 pixels.

    Reference: He et al., 2016, arXiv:1512.03385, section 4.2.

    Attributes:
      depth: layers, a key of `SIZES`.
      dtype: of the computation; parameters are float32.
      input: the images it is made for.
    """

    depth: int = 20
    dtype: str = 'float32'
    input: Input = Input(32, **IMAGENET)

    @property
    def endpoints(self) -> tuple[str, ...]:
        return 'stem', 'stage1', 'stage2', 'stage3', 'features'

    @nn.compact
    def __call__(self, x: Array, since: str | None = None, until='features'):
        """[N, H, W, 3] -> endpoint(s): stem, stage1, ..., stage3 [N, h, w, C]; features [N, 64]."""
        blocks = sized(self.depth, SIZES, 'CIFAR ResNet')
        stages = {'stem': ConvNorm(WIDTHS[0], 3, dtype=self.dtype, name='stem')}
        for i, width in enumerate(WIDTHS):
            name = f'stage{i + 1}'
            stages[name] = Stage(width, blocks, 1 if i == 0 else 2, self.dtype, name=name)
        stages['features'] = global_pool
        return run(stages, x, since, until)
