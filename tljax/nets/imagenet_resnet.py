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
      dilations: of the two 3x3 convolutions; a bottleneck has one, and takes the first.
      dtype: of the computation.
    """

    width: int
    stride: int = 1
    bottleneck: bool = False
    dilations: tuple[int, int] = (1, 1)
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, C] -> [N, H / stride, W / stride, width or 4 * width]."""
        first, second = self.dilations
        units = [(self.width, 3, self.stride, first), (self.width, 3, 1, second)]
        if self.bottleneck:
            units = [(self.width, 1, 1, 1), units[0], (4 * self.width, 1, 1, 1)]
        y = x
        for i, (width, kernel, stride, dilation) in enumerate(units, start=1):
            how = {'activation': 'relu' if i < len(units) else 'none', 'dilation': dilation}
            y = ConvNorm(width, kernel, stride, dtype=self.dtype, name=f'unit{i}', **how)(y)
        if x.shape != y.shape:
            project = ConvNorm(
                y.shape[-1], 1, self.stride, activation='none', dtype=self.dtype, name='shortcut'
            )
            x = project(x)
        return nn.relu(x + y)


class Stage(nn.Module):
    """Blocks of one width: block1, block2, ...; the first one has the stride.

    Of a stride that dilations replace, the first convolution still sees what is before it.
    """

    width: int
    blocks: int
    stride: int
    bottleneck: bool
    dilation: int  # of the block's convolutions ...
    before: int  # ... but the first one's, which is the last stage's
    dtype: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, C] -> [N, H / stride, W / stride, D]."""
        for i in range(self.blocks):
            stride, first = (1, self.dilation) if i else (self.stride, self.before)
            how = self.bottleneck, (first, self.dilation), self.dtype
            x = Block(self.width, stride, *how, name=f'block{i + 1}')(x)
        return x


class ImageNetResNet(nn.Module):
    """ResNet-18, 34, 50, 101 or 152.

    Stages 2 to 4 have strides. With an `output_stride` of 16 or 8 the last one or two have dilated
    convolutions in their place, as nets for segmentation have: parameters of the same shapes, and
    at every second pixel what the strides would have given.

    Reference: He et al., 2016, arXiv:1512.03385, table 1; Yu and Koltun, 2016, arXiv:1511.07122,
    eq. 2, for dilations.

    Attributes:
      depth: layers, a key of `SIZES`.
      output_stride: pixels of an image for one of stage4: 32, 16 or 8.
      dtype: of the computation; parameters are float32.
      input: the images it is made for.
    """

    depth: int = 50
    output_stride: int = 32
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

        Raises:
          ValueError: another depth or output stride.
        """
        if self.output_stride not in (8, 16, 32):
            raise ValueError(f'output_stride is {self.output_stride}; expected 8, 16 or 32')
        blocks, bottleneck = sized(self.depth, SIZES, 'ResNet')
        conv = ConvNorm(64, 7, 2, dtype=self.dtype, name='stem')
        stages = {'stem': lambda x: padded_max_pool(conv(x), 3, 2, 1)}
        for i, (width, count) in enumerate(zip(WIDTHS, blocks, strict=True)):
            reached, name = 2 ** (i + 2), f'stage{i + 1}'  # pixels for one, were there only strides
            stride = 2 if 4 < reached <= self.output_stride else 1
            wide, before = (max(1, n // self.output_stride) for n in (reached, reached // 2))
            how = bottleneck, wide, before, self.dtype
            stages[name] = Stage(width, count, stride, *how, name=name)
        stages['features'] = global_pool
        return run(stages, x, since, until)
