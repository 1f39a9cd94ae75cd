"""Inception V3 with named endpoints, and its auxiliary head."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from tljax.nets.backbone import Input, run
from tljax.nets.blocks import Mixed, Unit, global_pool, unit
from tljax.nets.norm import Dropout

EPSILON = 1e-3
ROW, COLUMN = (1, 7), (7, 1)

STEM = (
    Unit('conv1a', 32, 3, 2, 'VALID'),
    Unit('conv2a', 32, 3, 1, 'VALID'),
    Unit('conv2b', 64, 3),
    'max',
    Unit('conv3b', 80),
    Unit('conv4a', 192, 3, 1, 'VALID'),
    'max',
)


def narrow(pooled: int):
    """Branches at a map of 35 x 35: figure 5 of the paper."""
    return (
        (Unit('branch1x1', 64),),
        (Unit('branch5x5_1', 48), Unit('branch5x5_2', 64, 5)),
        (
            Unit('branch3x3dbl_1', 64),
            Unit('branch3x3dbl_2', 96, 3),
            Unit('branch3x3dbl_3', 96, 3),
        ),
        ('average', Unit('branch_pool', pooled)),
    )


def factored(width: int):
    """Branches at 17 x 17, with 7 x 7 convolutions as rows and columns: figure 6."""
    return (
        (Unit('branch1x1', 192),),
        (
            Unit('branch7x7_1', width),
            Unit('branch7x7_2', width, ROW),
            Unit('branch7x7_3', 192, COLUMN),
        ),
        (
            Unit('branch7x7dbl_1', width),
            Unit('branch7x7dbl_2', width, COLUMN),
            Unit('branch7x7dbl_3', width, ROW),
            Unit('branch7x7dbl_4', width, COLUMN),
            Unit('branch7x7dbl_5', 192, ROW),
        ),
        ('average', Unit('branch_pool', 192)),
    )


def split(name: str):
    """A row and a column side by side."""
    return Unit(f'{name}a', 384, (1, 3)), Unit(f'{name}b', 384, (3, 1))


REDUCED_17 = (
    (Unit('branch3x3', 384, 3, 2, 'VALID'),),
    (
        Unit('branch3x3dbl_1', 64),
        Unit('branch3x3dbl_2', 96, 3),
        Unit('branch3x3dbl_3', 96, 3, 2, 'VALID'),
    ),
    ('max',),
)
REDUCED_8 = (
    (Unit('branch3x3_1', 192), Unit('branch3x3_2', 320, 3, 2, 'VALID')),
    (
        Unit('branch7x7x3_1', 192),
        Unit('branch7x7x3_2', 192, ROW),
        Unit('branch7x7x3_3', 192, COLUMN),
        Unit('branch7x7x3_4', 192, 3, 2, 'VALID'),
    ),
    ('max',),
)
# Branches at 8 x 8: figure 7.
WIDE = (
    (Unit('branch1x1', 320),),
    (Unit('branch3x3_1', 384), split('branch3x3_2')),
    (Unit('branch3x3dbl_1', 448), Unit('branch3x3dbl_2', 384, 3), split('branch3x3dbl_3')),
    ('average', Unit('branch_pool', 192)),
)

# The paper's table 1, in the letters of TensorFlow's and torchvision's code.
BLOCKS = {
    'mixed5b': narrow(32),
    'mixed5c': narrow(64),
    'mixed5d': narrow(64),
    'mixed6a': REDUCED_17,
    'mixed6b': factored(128),
    'mixed6c': factored(160),
    'mixed6d': factored(160),
    'mixed6e': factored(192),
    'mixed7a': REDUCED_8,
    'mixed7b': WIDE,
    'mixed7c': WIDE,
}


class InceptionV3(nn.Module):
    """Inception V3 for images of 299 pixels (75 or more).

    torchvision's `transform_input` is no part of the net: it undoes ImageNet's mean and std in
    favour of 0.5, which is what `input` declares.

    Reference: Szegedy et al., 2016, arXiv:1512.00567, table 1.

    Attributes:
      dropout: rate on the features.
      epsilon: of the norms.
      dtype: of the computation; parameters are float32.
      input: the images it is made for.
    """

    dropout: float = 0.0
    epsilon: float = EPSILON
    dtype: str = 'float32'
    input: Input = Input(299)

    @property
    def endpoints(self) -> tuple[str, ...]:
        return 'stem', *BLOCKS, 'features'

    @property
    def auxiliary(self) -> dict[str, tuple[str, type[nn.Module]]]:
        """Role -> the endpoint that an auxiliary head reads, and the head."""
        return {'aux': ('mixed6e', InceptionAux)}

    @nn.compact
    def __call__(self, x: Array, since: str | None = None, until='features'):
        """[N, H, W, 3] -> endpoint(s): stem, mixed5b, ... [N, h, w, C]; features [N, 2048].

        At 299 pixels stem is [N, 35, 35, 192] and mixed7c [N, 8, 8, 2048].
        """
        stages = {'stem': Mixed((STEM,), self.epsilon, self.dtype, name='stem')}
        for name, branches in BLOCKS.items():
            stages[name] = Mixed(branches, self.epsilon, self.dtype, name=name)
        drop = Dropout(self.dropout, name='dropout')
        stages['features'] = lambda x: drop(global_pool(x))
        return run(stages, x, since, until)


class InceptionAux(nn.Module):
    """Auxiliary classifier: reads the endpoint mixed6e (role 'aux') of images of 299 pixels.

    Trained with `options.auxiliary` of the method `supervised`.

    Reference: Szegedy et al., 2016, arXiv:1512.00567, section 4.

    Attributes:
      classes: width of the output.
      dtype: of the computation up to the logits.
    """

    classes: int
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, 17, 17, C] -> [N, classes].

        Raises:
          ValueError: a map smaller than 17 x 17, of which nothing would be left.
        """
        if min(x.shape[1:3]) < 17:
            raise ValueError(
                'the auxiliary head of Inception V3 reads maps of 17 x 17 or more, as of images of '
                f'299 pixels (data.size), and not of {x.shape[1]} x {x.shape[2]}'
            )
        x = nn.avg_pool(x, (5, 5), (3, 3))
        x = unit(Unit('conv0', 128), EPSILON, self.dtype)(x)
        x = unit(Unit('conv1', 768, 5, 1, 'VALID'), EPSILON, self.dtype)(x)
        return nn.Dense(self.classes, name='fc')(global_pool(x).astype(jnp.float32))
