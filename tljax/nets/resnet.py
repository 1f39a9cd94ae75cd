"""A small residual network with named endpoints."""

from functools import partial

import flax.linen as nn
from jax import Array

from tljax.nets.backbone import Input, run
from tljax.nets.lowering import Conv
from tljax.nets.norm import BatchNorm, StochasticDepth

# Explicit padding, not 'SAME': at stride 2 they differ, and weights from elsewhere expect this one.
Conv3x3 = partial(
    Conv,
    kernel_size=(3, 3),
    padding=((1, 1), (1, 1)),
    use_bias=False,
    kernel_init=nn.initializers.variance_scaling(2.0, 'fan_out', 'normal'),
)
Conv1x1 = partial(Conv3x3, kernel_size=(1, 1), padding='VALID')


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut: relu(shortcut(x) + branch(x)).

    Attributes:
      width: output channels.
      stride: of the first convolution.
      drop_path: rate at which the branch is dropped.
    """

    width: int
    stride: int = 1
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, C] -> [N, H / stride, W / stride, width]."""
        strides = (self.stride, self.stride)
        y = Conv3x3(self.width, strides=strides, name='conv1')(x)
        y = nn.relu(BatchNorm(name='norm1')(y))
        y = Conv3x3(self.width, name='conv2')(y)
        y = BatchNorm(name='norm2')(y)
        if x.shape != y.shape:
            x = Conv1x1(self.width, strides=strides, name='shortcut_conv')(x)
            x = BatchNorm(name='shortcut_norm')(x)
        return nn.relu(x + StochasticDepth(self.drop_path, name='drop_path')(y))


class Stage(nn.Module):
    """Blocks of one width: block1, block2, ...; the first one has the stride.

    Attributes:
      width: output channels.
      blocks: how many.
      stride: of the first block.
      drop_path: rate at which a branch is dropped.
    """

    width: int
    blocks: int
    stride: int
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, C] -> [N, H / stride, W / stride, width]."""
        for i in range(self.blocks):
            stride = self.stride if i == 0 else 1
            x = Block(self.width, stride, self.drop_path, name=f'block{i + 1}')(x)
        return x


class Stem(nn.Module):
    """A 3x3 convolution, normalised: [N, H, W, C] -> [N, H, W, width]."""

    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.relu(BatchNorm(name='norm')(Conv3x3(self.width, name='conv')(x)))


class ResNet(nn.Module):
    """ResNet for images of 28 to 32 pixels: 6n + 2 layers for n blocks per stage.

    Shortcuts are projections where shapes change (the paper's option B; its own nets here take A).

    Reference: He et al., 2016, arXiv:1512.03385, section 4.2.

    Attributes:
      widths: channels of the stages; each but the first halves the image's side.
      blocks: per stage.
      drop_path: rate at which a residual branch is dropped (stochastic depth).
      input: the images it is made for.
    """

    widths: tuple[int, ...] = (16, 32, 64)
    blocks: int = 1
    drop_path: float = 0.0
    input: Input = Input(size=32, channels=3)

    @property
    def endpoints(self) -> tuple[str, ...]:
        return 'stem', *(f'stage{i + 1}' for i in range(len(self.widths))), 'features'

    @nn.compact
    def __call__(self, x: Array, since: str | None = None, until='features'):
        """[N, H, W, C] -> endpoint(s): stem, stage1, ... [N, h, w, width]; features [N, width]."""
        stages = {'stem': Stem(self.widths[0], name='stem')}
        for i, width in enumerate(self.widths):
            stride, name = 1 if i == 0 else 2, f'stage{i + 1}'
            stages[name] = Stage(width, self.blocks, stride, self.drop_path, name=name)
        stages['features'] = lambda x: x.mean((1, 2))
        return run(stages, x, since, until)
