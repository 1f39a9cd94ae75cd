"""Layers written with the CPU in mind: pools, and the convolution and dense layer around them.

A convolution and its pool run on the CPU as matrix products, of transformed columns (`filtering`)
or of patches (im2col). Inside, N is last, so that every slice, maximum and addition runs along
contiguous examples, and products are [O, K] @ [K, h * w * N], without transposes the fast side of a
narrow product. Most of the transposes at the borders cost nothing: XLA chooses layouts in which
they vanish. What follows elementwise is done before them: outside, it would fix the slow layout.
"""

import itertools
import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from tljax.nets import filtering
from tljax.nets.convolution import Conv, conv, pads_of
from tljax.nets.geometry import CHANNELS, NHWC
from tljax.nets.norm import BatchNorm


def max_pool(x: Array, window, strides=None, pads=((0, 0), (0, 0))) -> Array:
    """Maximum over windows: `flax.linen.max_pool` with a cheap gradient.

    Windows that do not overlap are taken by reshaping; others on the CPU as views of the rows and
    of the columns: of [16, 112, 112, 64], 3x3 with stride 2, on two cores in ms 21, with gradient
    70, where Flax's takes 34 and 224. As there, the gradient of a tie goes to the first maximum.

    Args:
      x: [..., H, W, C].
      window: side or sides of a window.
      strides: those of the windows; their sides if None.
      pads: two pairs, of minus infinity around x.

    Returns:
      [..., h, w, C].
    """
    window = (window, window) if isinstance(window, int) else tuple(window)
    strides = (strides, strides) if isinstance(strides, int) else tuple(strides or window)
    config = (*[(0, 0, 0)] * (x.ndim - 3), *((*pair, 0) for pair in pads), (0, 0, 0))
    x = lax.pad(x, jnp.array(-jnp.inf, x.dtype), config)
    if strides != window:
        native = lambda x: nn.max_pool(x, window, strides)
        if any(n < side for n, side in zip(x.shape[-3:-1], window, strict=True)):
            return native(x)  # nothing is left
        views = partial(_max_of_views, window, strides)
        return lax.platform_dependent(x, cpu=views, default=native)
    *lead, height, width, channels = x.shape
    h, w = height // window[0], width // window[1]
    x = x[..., : h * window[0], : w * window[1], :]
    x = x.reshape(*lead, h, window[0], w, window[1], channels)
    return first_max(first_max(x, -2), -3)


def _max_of_views(window, strides, x):
    """Columns first, rows then: the first maximum of a window is in the first row that has one."""
    for axis in (1, 0):
        at, side, stride = x.ndim - 3 + axis, window[axis], strides[axis]
        reach = (x.shape[at] - side) // stride * stride + 1
        views = [lax.slice_in_dim(x, i, i + reach, stride, at) for i in range(side)]
        x = first_max(jnp.stack(views, at), at)
    return x


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def first_max(x: Array, axis: int) -> Array:
    """Maximum over a short axis, whose gradient goes to the first maximum alone. NaN wins."""
    return _first_max(x, axis)[0]


@first_max.defjvp
def _(axis, primals, tangents):
    (x,), (tangent,) = primals, tangents
    value, index = _first_max(x, axis)
    positions = lax.broadcasted_iota(index.dtype, x.shape, axis % x.ndim)
    chosen = jnp.expand_dims(index, axis) == positions
    return value, jnp.where(chosen, tangent, jnp.zeros_like(tangent)).sum(axis)


def _first_max(x, axis):
    value = lax.index_in_dim(x, 0, axis, keepdims=False)
    index = jnp.zeros(value.shape, jnp.int32)
    for i in range(1, x.shape[axis]):
        other = lax.index_in_dim(x, i, axis, keepdims=False)
        stay = (value >= other) | (value != value)
        value, index = jnp.where(stay, value, other), jnp.where(stay, index, i)
    return value, index


def conv_pool(x: Array, kernel: Array, bias: Array, padding, window: int = 2) -> Array:
    """relu(max_pool(conv(x, kernel), window) + bias), on the CPU in one piece.

    All members of a window come out side by side: the pool is a maximum over them, and what would
    be moved for each output is moved once for a window.

    Args:
      x: [N, H, W, C].
      kernel: [kh, kw, C, O].
      bias: [O].
      padding: 'SAME', 'VALID' or two pairs.
      window: side of the pool's windows.

    Returns:
      [N, h, w, O].
    """
    pads = pads_of(x, kernel, (1, 1), padding)
    if _wide(x, kernel, pads, window):
        return nn.relu(_plain(x, kernel, pads, window) + bias)

    def native(x, kernel, bias):
        return nn.relu(_native(x, kernel, pads, window) + bias)

    def lowered(x, kernel, bias):
        y = _lowered(x, kernel, pads, window) + bias[:, None, None, None]
        return nn.relu(y).transpose(3, 1, 2, 0)

    return lax.platform_dependent(x, kernel, bias, cpu=lowered, default=native)


def conv_pool_last(x: Array, kernel: Array, padding, window: int = 2) -> Array:
    """max_pool(conv(x, kernel), window) as [O, h, w, N], for a norm: others are slow beside it.

    The arguments are those of `conv_pool`.
    """
    pads = pads_of(x, kernel, (1, 1), padding)
    native = lambda x, kernel: _native(x, kernel, pads, window).transpose(3, 1, 2, 0)
    lowered = lambda x, kernel: _lowered(x, kernel, pads, window)
    return lax.platform_dependent(x, kernel, cpu=lowered, default=native)


def _filtered(x, kernel, window) -> bool:
    """Whether columns are transformed here; those of many channels are by the convolution alone.

    LeNet's 20 -> 50 channels of 256 images, in ms of a step on two cores: 7.1, patches of windows
    12, transformed by the convolution alone 10.7. 32 -> 48 and 48 -> 64 of 128 images: 11 and 37,
    by the convolution alone 12 and 29.
    """
    return window == 2 and 8 <= x.shape[-1] < CHANNELS and filtering.fits(x, kernel.shape[1])


def _wide(x, kernel, pads, window) -> bool:
    """Whether a plain convolution, and the pool after it, are faster than patches for both.

    Where one pixel is left, it gets a slow layout: [120, 3, 3, 64] 3x3 -> 64, in ms 34 and 6.
    """
    several = max(_sides(x, kernel, pads, window)) > 1
    return x.shape[-1] >= CHANNELS and several


def _sides(x, kernel, pads, window):
    """Of the output."""
    return [side // window for side in filtering.sides_of(x, kernel.shape, pads)]


def _plain(x, kernel, pads, window):
    """[N, h, w, O]."""
    return max_pool(conv(x, kernel, (1, 1), pads, dimension_numbers=NHWC), window)


def _native(x, kernel, pads, window):
    """[N, h, w, O]."""
    y = lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=NHWC)
    return max_pool(y, window)


def _lowered(x, kernel, pads, window):
    """[O, h, w, N]."""
    sides = _sides(x, kernel, pads, window)
    way = filtering.windows if _filtered(x, kernel, window) else partial(_patches, window)
    return first_max(way(x.transpose(3, 1, 2, 0), kernel, pads, sides), 0)


def _patches(window, x, kernel, pads, sides):
    """The members of each window: [C, H, W, N], [kh, kw, C, O] -> [window * window, O, *sides, N].

    A window of p x p outputs lies in one patch of side k + p - 1: it is a convolution of stride p
    with the kernel in its p * p positions. Patches are fewer than those of single outputs by (k /
    (k + p - 1))^2 p^2, which for k = 5 outweighs 44 % more multiplications. Rows and columns are
    split by their place in a window, so that patches are few slices.
    """
    *taps, inner, outer = kernel.shape
    reach = [-(-(k + window - 1) // window) for k in taps]
    whole = [n + more - 1 for n, more in zip(sides, reach, strict=True)]
    x = filtering.fitted(x, pads, [window * n for n in whole])
    x = x.reshape(inner, whole[0], window, whole[1], window, -1).transpose(2, 4, 0, 1, 3, 5)
    slices = [
        x[:, :, :, i : i + sides[0], j : j + sides[1]]
        for i, j in itertools.product(*map(range, reach))
    ]
    rest = [window * more - k for more, k in zip(reach, taps, strict=True)]
    positions = [
        jnp.pad(kernel, ((i, rest[0] - i), (j, rest[1] - j), (0, 0), (0, 0)))
        for i, j in itertools.product(range(window), repeat=2)
    ]
    kernel = jnp.stack(positions).reshape(-1, reach[0], window, reach[1], window, inner, outer)
    kernel = kernel.transpose(0, 6, 1, 3, 2, 4, 5).reshape(len(positions) * outer, -1)
    y = kernel @ jnp.concatenate(slices).reshape(kernel.shape[1], -1)
    return y.reshape(len(positions), outer, *sides, -1)


class ConvPool(nn.Module):
    """relu(max_pool(conv(x) + bias)): a convolution of stride 1 and the pool after it.

    With a norm it is relu(norm(max_pool(conv(x)))): after the pool, where a quarter is left of it.

    Attributes:
      features: output channels.
      kernel_size: sides of the kernel.
      padding: of the convolution.
      window: side of the pool's windows.
      norm: batch normalisation in place of the bias.
    """

    features: int
    kernel_size: tuple[int, int]
    padding: str = 'VALID'
    window: int = 2
    norm: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, C] -> [N, h, w, features]."""
        x = jnp.asarray(x)
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param('kernel', nn.initializers.lecun_normal(), shape)
        pads = pads_of(x, kernel, (1, 1), self.padding)
        if self.norm and _wide(x, kernel, pads, self.window):
            return nn.relu(BatchNorm(name='norm')(_plain(x, kernel, pads, self.window)))
        if self.norm:
            y = conv_pool_last(x, kernel, self.padding, self.window)
            return nn.relu(BatchNorm(axis=0, name='norm')(y)).transpose(3, 1, 2, 0)
        bias = self.param('bias', nn.initializers.zeros, (self.features,))
        return conv_pool(x, kernel, bias, self.padding, self.window)


class FlatDense(nn.Module):
    """relu(x @ kernel + bias) of flattened images: the step from convolutions to vectors.

    As `flax.linen.Dense`; on the CPU it keeps N last, like the convolutions that it follows.

    Attributes:
      features: width of the output.
      norm: batch normalisation in place of the bias: relu(norm(x @ kernel)).
    """

    features: int
    norm: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, C] -> [N, features]."""
        shape = (math.prod(x.shape[1:]), self.features)
        kernel = self.param('kernel', nn.initializers.lecun_normal(), shape)
        if self.norm:
            y = kernel.T @ jnp.moveaxis(x, 0, -1).reshape(-1, x.shape[0])
            return nn.relu(BatchNorm(axis=0, name='norm')(y)).T
        bias = self.param('bias', nn.initializers.zeros, (self.features,))

        def native(x, kernel, bias):
            return nn.relu(x.reshape(x.shape[0], -1) @ kernel + bias)

        def last(x, kernel, bias):
            flat = jnp.moveaxis(x, 0, -1).reshape(-1, x.shape[0])
            return nn.relu(kernel.T @ flat + bias[:, None]).T

        return lax.platform_dependent(x, kernel, bias, cpu=last, default=native)


__all__ = ['NHWC', 'Conv', 'ConvPool', 'FlatDense', 'conv', 'conv_pool', 'first_max', 'max_pool']
