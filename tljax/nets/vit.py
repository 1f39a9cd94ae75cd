"""The vision transformer with named endpoints, in the layout of timm and DeiT."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from tljax.nets.backbone import Input, run
from tljax.nets.blocks import sized
from tljax.nets.lowering import Conv
from tljax.nets.norm import StochasticDepth

# Size -> width, heads: table 1 of DeiT (all of them have 12 blocks).
SIZES = {'tiny': (192, 3), 'small': (384, 6), 'base': (768, 12)}
EPSILON = 1e-6
NORMAL = nn.initializers.truncated_normal(0.02)


class Embed(nn.Module):
    """Patches to tokens, a class token before them, positions added.

    Attributes:
      width: of a token.
      patch: side of a patch in pixels.
      dtype: of the computation.
    """

    width: int
    patch: int
    dtype: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, C] -> [N, 1 + H / patch * W / patch, width].

        Raises:
          ValueError: an image is smaller than a patch.
        """
        if min(x.shape[1:3]) < self.patch:
            raise ValueError(f'an image of {x.shape[1:3]} is smaller than a patch of {self.patch}')
        sides = (self.patch, self.patch)
        conv = Conv(
            self.width, sides, strides=sides, padding='VALID', dtype=self.dtype, name='patches'
        )
        x = conv(x)
        x = x.reshape(x.shape[0], -1, self.width)
        token = self.param('class_token', NORMAL, (1, 1, self.width)).astype(x.dtype)
        x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, self.width)), x], 1)
        return x + self.param('positions', NORMAL, (1, *x.shape[1:])).astype(x.dtype)


class Attention(nn.Module):
    """Self-attention: softmax(q k^T / sqrt(d)) v for each head, then a projection.

    Attributes:
      heads: how many; each has width / heads channels.
      dtype: of the computation.
    """

    heads: int
    dtype: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, T, D] -> [N, T, D]."""
        *lead, width = x.shape
        qkv = nn.Dense(3 * width, dtype=self.dtype, kernel_init=NORMAL, name='qkv')(x)
        qkv = qkv.reshape(*lead, 3, self.heads, width // self.heads)
        y = jax.nn.dot_product_attention(*(qkv[..., i, :, :] for i in range(3)))
        y = y.reshape(*lead, width)
        return nn.Dense(width, dtype=self.dtype, kernel_init=NORMAL, name='proj')(y)


class Block(nn.Module):
    """x + attention(norm1(x)), then x + mlp(norm2(x)).

    Attributes:
      heads: of the attention.
      drop_path: rate at which a branch is dropped.
      dtype: of the computation.
    """

    heads: int
    drop_path: float
    dtype: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, T, D] -> [N, T, D]."""
        width, options = x.shape[-1], {'dtype': self.dtype, 'kernel_init': NORMAL}
        norm1, norm2 = (
            nn.LayerNorm(EPSILON, dtype=self.dtype, name=name) for name in ('norm1', 'norm2')
        )
        y = Attention(self.heads, self.dtype, name='attention')(norm1(x))
        x = x + StochasticDepth(self.drop_path, name='drop_path1')(y)
        y = nn.Dense(4 * width, **options, name='fc1')(norm2(x))
        y = nn.Dense(width, **options, name='fc2')(nn.gelu(y, approximate=False))
        return x + StochasticDepth(self.drop_path, name='drop_path2')(y)


class ViT(nn.Module):
    """ViT-Tiny, Small or Base with 16-pixel patches.

    `embed/positions` fixes the image's size. DeiT's weights want the mean and std of ImageNet;
    the default is that of timm's `augreg` ones.

    Reference: Dosovitskiy et al., 2021, arXiv:2010.11929, eqs. 1 to 4; Touvron et al., 2021,
    arXiv:2012.12877, table 1 for the sizes.

    Attributes:
      size: a key of `SIZES`.
      patch: side of a patch in pixels.
      blocks: how many.
      drop_path: rate at which a branch of the last block is dropped; it grows linearly from 0.
      dtype: of the computation; parameters are float32.
      input: the images it is made for.
    """

    size: str = 'small'
    patch: int = 16
    blocks: int = 12
    drop_path: float = 0.0
    dtype: str = 'float32'
    input: Input = Input(224, 3)

    @property
    def endpoints(self) -> tuple[str, ...]:
        return 'embed', *(f'block{i + 1}' for i in range(self.blocks)), 'norm', 'features'

    @nn.compact
    def __call__(self, x: Array, since: str | None = None, until='features'):
        """[N, H, W, 3] -> endpoint(s): embed, block1, ..., norm [N, T, D]; features [N, D].

        Features are the class token after the norm.
        """
        width, heads = sized(self.size, SIZES, 'ViT')
        stages = {'embed': Embed(width, self.patch, self.dtype, name='embed')}
        for i in range(self.blocks):
            rate = self.drop_path * i / max(1, self.blocks - 1)
            stages[f'block{i + 1}'] = Block(heads, rate, self.dtype, name=f'block{i + 1}')
        stages['norm'] = nn.LayerNorm(EPSILON, dtype=self.dtype, name='norm')
        stages['features'] = lambda x: x[:, 0].astype(jnp.float32)
        return run(stages, x, since, until)
