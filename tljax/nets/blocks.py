"""What the convolutional families share: convolution + norm, mixed blocks, padded pools."""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from tljax.nets.lowering import Conv, max_pool
from tljax.nets.norm import BatchNorm
from tljax.types import unknown

HE = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
ACTIVATIONS = {'relu': nn.relu, 'relu6': nn.relu6, 'none': lambda x: x}

# What torchvision's weights were trained with.
IMAGENET = {'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225)}


def sized(size, table: Mapping, kind: str):
    """The row of a table of sizes.

    Raises:
      ValueError: there is no such size.
    """
    if size not in table:
        raise unknown(f'size of {kind}', size, table)
    return table[size]


def sides(kernel: int | tuple[int, int]) -> tuple[int, int]:
    return (kernel, kernel) if isinstance(kernel, int) else tuple(kernel)


def around(kernel: int | tuple[int, int], dilation: int = 1) -> tuple[tuple[int, int], ...]:
    """Padding of half a kernel, spread out by its dilation, on both sides.

    Unlike 'SAME', which pads by what the stride leaves over: at stride 2 they differ by a pixel,
    and weights expect the one they were trained with.
    """
    return tuple((side // 2 * dilation,) * 2 for side in sides(kernel))


class ConvNorm(nn.Module):
    """Convolution, batch normalisation, activation.

    Attributes:
      width: output channels.
      kernel: side or sides.
      stride: in both directions.
      padding: 'around' (half a kernel), 'SAME', 'VALID' or two pairs.
      dilation: pixels from one element of the kernel to the next.
      groups: of channels; as many as there are makes it depthwise.
      bias: whether the convolution has one.
      norm: whether there is a norm.
      epsilon: of the norm.
      activation: 'relu', 'relu6' or 'none'.
      dtype: of the computation; parameters are float32.
    """

    width: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1
    padding: str | tuple = 'around'
    dilation: int = 1
    groups: int = 1
    bias: bool = False
    norm: bool = True
    epsilon: float = 1e-5
    activation: str = 'relu'
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, C] -> [N, h, w, width]."""
        conv = Conv(
            self.width,
            sides(self.kernel),
            strides=(self.stride, self.stride),
            padding=around(self.kernel, self.dilation)
            if self.padding == 'around'
            else self.padding,
            kernel_dilation=self.dilation,
            feature_group_count=self.groups,
            use_bias=self.bias,
            kernel_init=HE,
            dtype=self.dtype,
            name='conv',
        )
        x = conv(x)
        if self.norm:
            x = BatchNorm(epsilon=self.epsilon, name='norm')(x)
        return ACTIVATIONS[self.activation](x)


class Unit(NamedTuple):
    """One convolution of a `Mixed` block: the module's name and its sizes."""

    name: str
    width: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1
    padding: str = 'around'


# A step of a branch: a convolution, a pool, or convolutions side by side.
Step = Unit | str | tuple[Unit, ...]


class Mixed(nn.Module):
    """An inception block: branches side by side on one input, their outputs concatenated.

    Attributes:
      branches: each a chain of steps, in the order of the output's channels.
      epsilon: of the norms.
      dtype: of the computation.
    """

    branches: tuple[tuple[Step, ...], ...]
    epsilon: float = 1e-3
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, C] -> [N, h, w, widths of the branches together]."""
        outputs = []
        for branch in self.branches:
            y = x
            for step in branch:
                y = self.step(step, y)
            outputs.append(y)
        return jnp.concatenate(outputs, -1)

    def step(self, step: Step, x: Array) -> Array:
        if isinstance(step, str):
            return POOLS[step](x)
        if isinstance(step, Unit):
            return unit(step, self.epsilon, self.dtype)(x)
        return jnp.concatenate([self.step(one, x) for one in step], -1)


def unit(one: Unit, epsilon: float, dtype: str) -> ConvNorm:
    """The module of a unit, for the body of a compact method."""
    name, *sizes = one
    return ConvNorm(*sizes, epsilon=epsilon, dtype=dtype, name=name)


def padded_max_pool(x: Array, window: int, stride: int, padding: int = 0, ceil: bool = False):
    """Maximum over windows: [N, H, W, C] -> [N, h, w, C].

    Args:
      x: the map.
      window: side of a window.
      stride: between windows.
      padding: rows and columns of minus infinity on each side.
      ceil: whether a last, incomplete window counts, if it begins inside.
    """
    pads = []
    for length in x.shape[1:3]:
        rest = (length + 2 * padding - window) % stride
        windows = (length + 2 * padding - window) // stride + 1
        more = ceil and rest and windows * stride < length + padding
        pads.append((padding, padding + (stride - rest if more else 0)))
    return max_pool(x, window, stride, pads)


POOLS = {
    'max': partial(max_pool, window=3, strides=2),
    'max_same': partial(padded_max_pool, window=3, stride=1, padding=1),
    # Border windows are divided by 9 as well, zeros counted.
    'average': lambda x: nn.avg_pool(x, (3, 3), (1, 1), ((1, 1), (1, 1))),
}


def global_pool(x: Array) -> Array:
    """Mean over positions, in float32: [N, H, W, C] -> [N, C]."""
    return x.mean((1, 2), dtype=jnp.float32)


def adaptive_pool(x: Array, side: int) -> Array:
    """Means over a grid of side x side windows, whatever the map's size.

    Window i of a row of n pixels is floor(i n / side) ... ceil((i + 1) n / side) - 1.

    Args:
      x: [N, H, W, C].
      side: of the output.

    Returns:
      [N, side, side, C]; x itself where it has that size already.
    """
    if x.shape[1:3] == (side, side):
        return x
    rows, columns = (jnp.asarray(_windows(length, side), x.dtype) for length in x.shape[1:3])
    return jnp.einsum('nhwc,ih,jw->nijc', x, rows, columns)


def _windows(length: int, side: int) -> np.ndarray:
    matrix = np.zeros((side, length))
    for i in range(side):
        begin, end = i * length // side, -(-(i + 1) * length // side)
        matrix[i, begin:end] = 1 / (end - begin)
    return matrix


def flat_by_channel(x: Array) -> Array:
    """[N, H, W, C] -> [N, C * H * W].

    The order in which PyTorch flattens, so that a dense layer's weights need no reordering.
    """
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
