"""MobileNetV2 with named endpoints."""

import flax.linen as nn
from jax import Array

from tljax.nets.backbone import Input, run
from tljax.nets.blocks import IMAGENET, ConvNorm, global_pool
from tljax.nets.norm import Dropout

# Expansion, channels, blocks and the first block's stride: the paper's table 2.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def rounded(channels: float) -> int:
    """Channels to a multiple of 8, not more than a tenth below what was asked for."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


class InvertedResidual(nn.Module):
    """Expand (1x1), filter (3x3, depthwise), project (1x1, linear); plus x where shapes agree.

    Attributes:
      width: output channels.
      expansion: of the input's channels; 1 leaves the first convolution out.
      stride: of the depthwise convolution.
      padding: of the depthwise convolution: 'around' (PyTorch) or 'SAME' (TensorFlow).
      epsilon: of the norms.
      dtype: of the computation.
    """

    width: int
    expansion: int
    stride: int = 1
    padding: str = 'around'
    epsilon: float = 1e-5
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, C] -> [N, H / stride, W / stride, width]."""
        common = {'epsilon': self.epsilon, 'dtype': self.dtype}
        hidden = x.shape[-1] * self.expansion
        y = x
        if self.expansion != 1:
            y = ConvNorm(hidden, activation='relu6', name='expand', **common)(y)
        y = ConvNorm(
            hidden,
            3,
            self.stride,
            self.padding,
            groups=hidden,
            activation='relu6',
            name='depthwise',
            **common,
        )(y)
        y = ConvNorm(self.width, activation='none', name='project', **common)(y)
        return x + y if x.shape == y.shape else y


class Stage(nn.Module):
    """Inverted residuals of one width, block1, block2, ...; the first one has the stride."""

    width: int
    expansion: int
    blocks: int
    stride: int
    padding: str
    epsilon: float
    dtype: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, C] -> [N, H / stride, W / stride, width]."""
        for i in range(self.blocks):
            x = InvertedResidual(
                self.width,
                self.expansion,
                self.stride if i == 0 else 1,
                self.padding,
                self.epsilon,
                self.dtype,
                name=f'block{i + 1}',
            )(x)
        return x


class MobileNetV2(nn.Module):
    """MobileNetV2: inverted residuals with linear bottlenecks.

    Weights from TensorFlow want `padding='SAME'`, mean and std 0.5 and, unless their norms are
    folded, `epsilon=1e-3`; the defaults are those of PyTorch's.

    Reference: Sandler et al., 2018, arXiv:1801.04381, table 2.

    Attributes:
      multiplier: of all widths; the features keep 1280 below 1.
      padding: 'around' (PyTorch) or 'SAME' (TensorFlow: stride 2 pads bottom and right only).
      epsilon: of the norms.
      dropout: rate on the features.
      dtype: of the computation; parameters are float32.
      input: the images it is made for.
    """

    multiplier: float = 1.0
    padding: str = 'around'
    epsilon: float = 1e-5
    dropout: float = 0.0
    dtype: str = 'float32'
    input: Input = Input(224, **IMAGENET)

    @property
    def endpoints(self) -> tuple[str, ...]:
        return 'stem', *(f'stage{i + 1}' for i in range(len(STAGES))), 'top', 'features'

    @nn.compact
    def __call__(self, x: Array, since: str | None = None, until='features'):
        """[N, H, W, 3] -> endpoint(s): stem, stage1, ..., top [N, h, w, C]; features [N, D].

        At 224 pixels stem is [N, 112, 112, 32], top [N, 7, 7, 1280] and D is 1280.
        """
        common = {'epsilon': self.epsilon, 'dtype': self.dtype}
        first, last = rounded(32 * self.multiplier), rounded(1280 * max(1.0, self.multiplier))
        act = {'activation': 'relu6', **common}
        stages = {'stem': ConvNorm(first, 3, 2, self.padding, name='stem', **act)}
        for i, (expansion, width, blocks, stride) in enumerate(STAGES, start=1):
            sizes = rounded(width * self.multiplier), expansion, blocks, stride, self.padding
            stages[f'stage{i}'] = Stage(*sizes, **common, name=f'stage{i}')
        stages['top'] = ConvNorm(last, name='top', **act)
        drop = Dropout(self.dropout, name='dropout')
        stages['features'] = lambda x: drop(global_pool(x))
        return run(stages, x, since, until)
