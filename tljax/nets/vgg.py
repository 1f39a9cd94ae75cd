"""VGG with named endpoints, with and without batch normalisation."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from tljax.nets.backbone import Input, run
from tljax.nets.blocks import IMAGENET, ConvNorm, adaptive_pool, flat_by_channel, sized
from tljax.nets.lowering import max_pool
from tljax.nets.norm import Dropout

# Layers -> convolutions in each stage: the paper's table 1, columns A, B, D, E.
SIZES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (1, 2, 4, 8, 8)  # times `width`


class Stage(nn.Module):
    """3x3 convolutions with ReLU, conv1, conv2, ..., then a 2x2 max pool.

    Attributes:
      width: output channels.
      convs: how many convolutions.
      norm: whether each has batch normalisation.
      dtype: of the computation.
    """

    width: int
    convs: int
    norm: bool
    dtype: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, C] -> [N, H / 2, W / 2, width]."""
        for i in range(self.convs):
            # The published ones with a norm have the convolution's bias too.
            unit = {'bias': True, 'norm': self.norm, 'dtype': self.dtype}
            x = ConvNorm(self.width, 3, name=f'conv{i + 1}', **unit)(x)
        return max_pool(x, 2)


class VGG(nn.Module):
    """VGG-11, 13, 16 or 19.

    The endpoints fc6 and fc7 are the classic feature layers, after their ReLU; `features` is fc7,
    with dropout in training. The last map is pooled to `grid` x `grid` if the image's size gives
    it another one.

    Reference: Simonyan and Zisserman, 2015, arXiv:1409.1556, table 1.

    Attributes:
      depth: layers, a key of `SIZES`.
      norm: whether convolutions have batch normalisation (torchvision's `vgg16_bn` and so on).
      width: channels of the first stage; the others are multiples of it.
      dense: width of fc6 and fc7.
      grid: side of the map that fc6 reads.
      dropout: rate after fc6 and after fc7.
      dtype: of the computation; parameters are float32.
      input: the images it is made for.
    """

    depth: int = 16
    norm: bool = False
    width: int = 64
    dense: int = 4096
    grid: int = 7
    dropout: float = 0.5
    dtype: str = 'float32'
    input: Input = Input(224, **IMAGENET)

    @property
    def endpoints(self) -> tuple[str, ...]:
        return 'stage1', 'stage2', 'stage3', 'stage4', 'stage5', 'fc6', 'fc7', 'features'

    @nn.compact
    def __call__(self, x: Array, since: str | None = None, until='features'):
        """[N, H, W, 3] -> endpoint(s): stage1, ... [N, h, w, C]; fc6, fc7, features [N, dense]."""
        stages = {}
        for i, convs in enumerate(sized(self.depth, SIZES, 'VGG')):
            name = f'stage{i + 1}'
            stages[name] = Stage(self.width * WIDTHS[i], convs, self.norm, self.dtype, name=name)
        fc6, fc7 = (nn.Dense(self.dense, dtype=self.dtype, name=name) for name in ('fc6', 'fc7'))
        # Dropout opens the next stage: what is random may not be inside fc6 or fc7, which can be
        # cached.
        drop6, drop7 = (Dropout(self.dropout, name=f'dropout{i}') for i in (6, 7))
        stages['fc6'] = lambda x: nn.relu(fc6(flat_by_channel(adaptive_pool(x, self.grid))))
        stages['fc7'] = lambda x: nn.relu(fc7(drop6(x)))
        stages['features'] = lambda x: drop7(x).astype(jnp.float32)
        return run(stages, x, since, until)
