"""Layers written with the CPU in mind: pools, and the convolution and dense layer around them.

A convolution of few channels, and its pool, run on the CPU as patches (im2col) and one matrix
product. Inside, N is last, so that every slice, maximum and addition runs along contiguous
examples, and the product is [O, K] @ [K, h * w * N], the fast side of a narrow product. Most of the
transposes at the borders cost nothing: XLA chooses layouts in which they vanish. What follows
elementwise is done before them: outside, it would fix the slow layout.
"""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from tljax.nets.convolution import NHWC, Conv, conv, pads_of
from tljax.nets.norm import BatchNorm


def max_pool(x: Array, window, strides=None) -> Array:
    """Maximum over windows, without padding: `flax.linen.max_pool` with a cheap gradient.

    Windows that do not overlap are taken by reshaping; others are left to Flax. As there, the
    gradient of a tie goes to the first maximum.

    Args:
      x: [..., H, W, C].
      window: side or sides of a window.
      strides: those of the windows; their sides if None.

    Returns:
      [..., h, w, C].
    """
    window = (window, window) if isinstance(window, int) else tuple(window)
    strides = (strides, strides) if isinstance(strides, int) else tuple(strides or window)
    if strides != window:
        return nn.max_pool(x, window, strides)
    *lead, height, width, channels = x.shape
    h, w = height // window[0], width // window[1]
    x = x[..., : h * window[0], : w * window[1], :]
    x = x.reshape(*lead, h, window[0], w, window[1], channels)
    return first_max(first_max(x, -2), -3)


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

    A window of p x p outputs lies in one patch of side k + p - 1. So a convolution of stride p with
    the kernel in its p * p positions, side by side, gives all members of a window as channels: the
    pool is a maximum over them, and patches are fewer by (k / (k + p - 1))^2 p^2, which for k = 5
    outweighs the 44 % more multiplications.

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


def _wide(x, kernel, pads, window) -> bool:
    """Whether a plain convolution, and the pool after it, are faster than one product for both.

    In ms with gradients, on one core: [120, 14, 14, 64] 3x3 -> 64, 157 plain and 413 in one; [120,
    14, 14, 16] -> 32, 29 and 37; [128, 12, 12, 20] 5x5 -> 50, 79 and 55. Where one pixel is left, a
    plain convolution gets a slow layout: [120, 3, 3, 64] 3x3 -> 64, 34 and 6.
    """
    left = [
        (side + sum(pad) - k + 1) // window
        for side, pad, k in zip(x.shape[1:3], pads, kernel.shape, strict=False)
    ]
    return x.shape[-1] >= 32 and max(left) > 1


def _plain(x, kernel, pads, window):
    """[N, h, w, O]."""
    return max_pool(conv(x, kernel, (1, 1), pads, dimension_numbers=NHWC), window)


def _native(x, kernel, pads, window):
    """[N, h, w, O]."""
    y = lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=NHWC)
    return max_pool(y, window)


def _lowered(x, kernel, pads, window):
    """[O, h, w, N]."""
    rest, (*_, outer) = window - 1, kernel.shape
    positions = [
        jnp.pad(kernel, ((i, rest - i), (j, rest - j), (0, 0), (0, 0)))
        for i in range(window)
        for j in range(window)
    ]
    y = _product(x.transpose(3, 1, 2, 0), jnp.concatenate(positions, -1), (window, window), pads)
    return first_max(y.reshape(len(positions), outer, *y.shape[1:]), 0)


def _product(x, kernel, strides, pads):
    """Convolution as a product: [C, H, W, N], [kh, kw, C, O] -> [O, h, w, N]."""
    *_, inner, outer = kernel.shape
    zero = jnp.zeros((), x.dtype)
    x = lax.pad(x, zero, ((0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0)))
    sides = [(x.shape[d + 1] - kernel.shape[d]) // strides[d] + 1 for d in (0, 1)]
    slices = []
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            ends = [at + (n - 1) * s + 1 for at, n, s in zip((i, j), sides, strides, strict=True)]
            slices.append(x[:, i : ends[0] : strides[0], j : ends[1] : strides[1]])
    patches = jnp.concatenate(slices)  # [kh * kw * C, h, w, N]
    # Two dimensions each: with more, the gradients' products would transpose the patches.
    y = lax.dot_general(
        kernel.reshape(-1, outer),
        patches.reshape(len(slices) * inner, -1),
        (((0,), (0,)), ((), ())),
    )
    return y.reshape(outer, *sides, -1)


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
