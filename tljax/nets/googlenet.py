"""GoogLeNet (Inception v1) with named endpoints, and its auxiliary head."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from tljax.nets.backbone import Input, run
from tljax.nets.blocks import (
    ConvNorm,
    Mixed,
    Unit,
    adaptive_pool,
    flat_by_channel,
    global_pool,
    padded_max_pool,
)
from tljax.nets.norm import Dropout

EPSILON = 1e-3

# 1x1; 3x3 reduced, 3x3; "5x5" reduced, 5x5; pool projected: the paper's table 1.
BLOCKS = {
    'mixed3a': (64, (96, 128), (16, 32), 32),
    'mixed3b': (128, (128, 192), (32, 96), 64),
    'mixed4a': (192, (96, 208), (16, 48), 64),
    'mixed4b': (160, (112, 224), (24, 64), 64),
    'mixed4c': (128, (128, 256), (24, 64), 64),
    'mixed4d': (112, (144, 288), (32, 64), 64),
    'mixed4e': (256, (160, 320), (32, 128), 128),
    'mixed5a': (256, (160, 320), (32, 128), 128),
    'mixed5b': (384, (192, 384), (48, 128), 128),
}
# Blocks that a pool of stride 2 precedes, and its window.
POOLED = {'mixed4a': 3, 'mixed5a': 2}


def branches(one: int, three: tuple[int, int], five: tuple[int, int], pooled: int):
    """The branches of a block, for `Mixed`."""
    # The third branch is 3x3, not the paper's 5x5: torchvision's slip, which its weights share.
    return (
        (Unit('branch1', one),),
        (Unit('branch2_1', three[0]), Unit('branch2_2', three[1], 3)),
        (Unit('branch3_1', five[0]), Unit('branch3_2', five[1], 3)),
        ('max_same', Unit('branch4', pooled)),
    )


class GoogLeNet(nn.Module):
    """GoogLeNet with batch normalisation, as torchvision has it.

    torchvision's `transform_input` is no part of the net: it undoes ImageNet's mean and std in
    favour of 0.5, which is what `input` declares.

    Reference: Szegedy et al., 2015, arXiv:1409.4842, table 1.

    Attributes:
      dropout: rate on the features.
      epsilon: of the norms.
      dtype: of the computation; parameters are float32.
      input: the images it is made for.
    """

    dropout: float = 0.0
    epsilon: float = EPSILON
    dtype: str = 'float32'
    input: Input = Input(224)

    @property
    def endpoints(self) -> tuple[str, ...]:
        return 'stem', *BLOCKS, 'features'

    @property
    def auxiliary(self) -> dict[str, tuple[str, type[nn.Module]]]:
        """Role -> the endpoint that an auxiliary head reads, and the head."""
        return {'aux1': ('mixed4a', GoogLeNetAux), 'aux2': ('mixed4d', GoogLeNetAux)}

    @nn.compact
    def __call__(self, x: Array, since: str | None = None, until='features'):
        """[N, H, W, 3] -> endpoint(s): stem, mixed3a, ... [N, h, w, C]; features [N, 1024].

        At 224 pixels stem is [N, 28, 28, 192] and mixed5b [N, 7, 7, 1024].
        """
        stages = {'stem': Stem(self.epsilon, self.dtype, name='stem')}
        for name, sizes in BLOCKS.items():
            block = Mixed(branches(*sizes), self.epsilon, self.dtype, name=name)
            window = POOLED.get(name)
            stages[name] = _after_pool(block, window) if window else block
        drop = Dropout(self.dropout, name='dropout')
        stages['features'] = lambda x: drop(global_pool(x))
        return run(stages, x, since, until)


def _after_pool(block, window):
    return lambda x: block(padded_max_pool(x, window, 2, ceil=True))


class Stem(nn.Module):
    """Three convolutions and two pools: [N, H, W, 3] -> [N, H / 8, W / 8, 192]."""

    epsilon: float
    dtype: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        common = {'epsilon': self.epsilon, 'dtype': self.dtype}
        x = ConvNorm(64, 7, 2, name='conv1', **common)(x)
        x = padded_max_pool(x, 3, 2, ceil=True)
        x = ConvNorm(64, 1, name='conv2', **common)(x)
        x = ConvNorm(192, 3, name='conv3', **common)(x)
        return padded_max_pool(x, 3, 2, ceil=True)


class GoogLeNetAux(nn.Module):
    """Auxiliary classifier: reads the endpoint mixed4a (role 'aux1') or mixed4d ('aux2').

    Trained with `options.auxiliary` of the method `supervised`.

    Reference: Szegedy et al., 2015, arXiv:1409.4842, section 5.

    Attributes:
      classes: width of the output.
      dropout: rate before the last layer.
      dtype: of the computation up to the logits.
    """

    classes: int
    dropout: float = 0.7
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, h, w, C] -> [N, classes]."""
        x = adaptive_pool(x, 4)
        x = ConvNorm(128, 1, epsilon=EPSILON, dtype=self.dtype, name='conv')(x)
        x = nn.relu(nn.Dense(1024, dtype=self.dtype, name='fc1')(flat_by_channel(x)))
        x = Dropout(self.dropout, name='dropout')(x).astype(jnp.float32)
        return nn.Dense(self.classes, name='fc2')(x)
