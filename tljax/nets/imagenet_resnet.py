"""The residual networks of ImageNet with named endpoints."""

import flax.linen as nn
from jax import Array

from tljax.nets.backbone import Input, run
from tljax.nets.blocks import IMAGENET, ConvNorm, global_pool, padded_max_pool, sized

# Layers -> blocks in each stage, and whether they are bottlenecks: the paper's table 1.
SIZES = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}
WIDTHS = (64, 128, 256, 512)


class Block(nn.Module):
    """relu(shortcut(x) + branch(x)); where shapes change the shortcut is a projection.

    The branch is two 3x3 convolutions, or 1x1, 3x3, 1x1 as a bottleneck. The stride is that of the
    first 3x3 convolution, in bottlenecks too ("v1.5"; the paper's own have it in the first 1x1).

    Attributes:
      width: channels of the 3x3 convolutions.
      stride: of the block.
      bottleneck: whether it is one, with 4 * width output channels.
      dtype: of the computation.
    """

    width: int
    stride: int = 1
    bottleneck: bool = False
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, C] -> [N, H / stride, W / stride, width or 4 * width]."""
        units = [(self.width, 3, self.stride), (self.width, 3, 1)]
        if self.bottleneck:
            units = [(self.width, 1, 1), (self.width, 3, self.stride), (4 * self.width, 1, 1)]
        y = x
        for i, sizes in enumerate(units, start=1):
            act = 'relu' if i < len(units) else 'none'
            y = ConvNorm(*sizes, activation=act, dtype=self.dtype, name=f'unit{i}')(y)
        if x.shape != y.shape:
            project = ConvNorm(
                y.shape[-1], 1, self.stride, activation='none', dtype=self.dtype, name='shortcut'
            )
            x = project(x)
        return nn.relu(x + y)


class Stage(nn.Module):
    """Blocks of one width: block1, block2, ...; the first one has the stride."""

    width: int
    blocks: int
    stride: int
    bottleneck: bool
    dtype: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, C] -> [N, H / stride, W / stride, D]."""
        for i in range(self.blocks):
            stride = self.stride if i == 0 else 1
            x = Block(self.width, stride, self.bottleneck, self.dtype, name=f'block{i + 1}')(x)
        return x


class ImageNetResNet(nn.Module):
    """ResNet-18, 34, 50, 101 or 152.

    Stages 2 to 4 have strides. The dilated variants of segmentation have parameters of the same
    shapes, but are other nets, and not here.

    Reference: He et al., 2016, arXiv:1512.03385, table 1.

    Attributes:
      depth: layers, a key of `SIZES`.
      dtype: of the computation; parameters are float32.
      input: the images it is made for.
    """

    depth: int = 50
    dtype: str = 'float32'
    input: Input = Input(224, **IMAGENET)

    @property
    def endpoints(self) -> tuple[str, ...]:
        return 'stem', 'stage1', 'stage2', 'stage3', 'stage4', 'features'

    @nn.compact
    def __call__(self, x: Array, since: str | None = None, until='features'):
        """[N, H, W, 3] -> endpoint(s): stem, stage1, ..., stage4 [N, h, w, C]; features [N, D].

        At 224 pixels stem is [N, 56, 56, 64], stage4 [N, 7, 7, D]; D is 512, or 2048 from
        ResNet-50 on.
        """
        blocks, bottleneck = sized(self.depth, SIZES, 'ResNet')
        conv = ConvNorm(64, 7, 2, dtype=self.dtype, name='stem')
        stages = {'stem': lambda x: padded_max_pool(conv(x), 3, 2, 1)}
        for i, (width, count) in enumerate(zip(WIDTHS, blocks, strict=True)):
            stride, name = 1 if i == 0 else 2, f'stage{i + 1}'
            stages[name] = Stage(width, count, stride, bottleneck, self.dtype, name=name)
        stages['features'] = global_pool
        return run(stages, x, since, until)
