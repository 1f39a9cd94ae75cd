"""Convolution whose gradients are fast on the CPU too.

XLA's convolution on the CPU is fast for [N, H, W, C] images and [kh, kw, C, O] kernels, and slow
for the layouts that its own gradients ask for: inside `scan` or `fori_loop` 10 to 100 times slower.
So is the grouped convolution that `vmap` over models makes of it. So `conv` has gradients of its
own there: for the input, a plain convolution again; for the kernel, patches and a product. Of many
channels and stride 1 the three are done by minimal filtering (`filtering`), with half of a 3x3
kernel's multiplications. Other platforms keep the native ones. What was measured and made the
rules, in ms, 3x3 on two cores and on one:

                          forward                          kernel's gradient
                          native         filtered          by blocks      filtered
    [16, 112, 112, 64]    45    74       41    69          118   143      46    76
    [16, 56, 56, 64]      17    17       7.1   13          20    25       12    19
    [16, 28, 28, 128]     8.3   16       5.2   9.5         12    20       6.4   13
    [16, 14, 14, 256]     8.3   16       5.3   10          12    21       6.0   10
    [16, 7, 7, 512]       11    20       6.1   12          10    21       6.2   12
    [128, 32, 32, 16]     3.3   6.7      5.4   9.3         5.2   8.0      3.1   9.8
    [128, 16, 16, 32]     2.7   3.0      2.0   4.0         4.7   6.1      1.4   2.9
    [128, 8, 8, 64]       2.6   2.6      1.0   1.9         3.4   4.8      1.0   1.9

On two slower cores, of what is not filtered:

    forward       [16, 56, 56, 64]  1x1 -> 64    native 4.0  product 1.4
                  [16, 14, 14, 1024] 1x1 -> 256  native 13   product 7.0
                  [16, 28, 28, 192] depthwise    native 158  shifted sums 1.1
    image's       [128, 32, 32, 16] 3x3, stride 2 -> 32   turned, dilated 10   scattered 5.5
    gradient      [16, 14, 14, 256] 3x3, stride 2 -> 512  turned, dilated 24   scattered 14
                  [16, 7, 7, 512] 3x3 -> 512     turned 36                     scattered 28
    kernel's      [16, 7, 7, 512] 3x3 -> 512     one block 25        an example a block 44
    gradient      [128, 32, 32, 16] on one core  block of 2**15 21   an example a block 14
"""

import itertools
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap

from tljax.nets import filtering
from tljax.nets.depthwise import depthwise
from tljax.nets.geometry import NHWC, Geometry

PIXELS = 128  # output pixels of one block of examples, if an example has fewer
WIDE = 512  # output channels from which products make up for patches of all examples at once


def conv(
    lhs: Array,
    rhs: Array,
    window_strides,
    padding,
    lhs_dilation=None,
    rhs_dilation=None,
    dimension_numbers=None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision=None,
    preferred_element_type=None,
) -> Array:
    """`jax.lax.conv_general_dilated` with gradients that are fast on the CPU.

    For `flax.linen.Conv(conv_general_dilated=conv)`; see `Conv`. What is not covered (dilation,
    groups of several channels, other layouts, other than two dimensions) is native. Reverse-mode
    differentiation of any order works; forward mode (`jax.jvp`) not for all kernels.

    Args:
      lhs: [N, H, W, C].
      rhs: [kh, kw, C, O]; [kh, kw, 1, C] with `feature_group_count` C.
      window_strides: two integers.
      padding: 'SAME', 'VALID' or two pairs.

    Returns:
      [N, h, w, O].
    """
    lhs, rhs = jnp.asarray(lhs), jnp.asarray(rhs)
    by_channel = 1 < feature_group_count == lhs.shape[-1] == rhs.shape[-1]
    groups = 1 if by_channel else feature_group_count
    special = (*(lhs_dilation or ()), *(rhs_dilation or ()), groups, batch_group_count)
    layout = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    if (
        lhs.ndim != 4
        or any(one != 1 for one in special)
        or layout != lax.conv_dimension_numbers(lhs.shape, rhs.shape, NHWC)
        or preferred_element_type is not None
    ):
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            feature_group_count,
            batch_group_count,
            precision,
            preferred_element_type,
        )
    pads = tuple(tuple(pair) for pair in pads_of(lhs, rhs, window_strides, padding))
    strides = tuple(window_strides)
    sides = lhs.shape[1:3], rhs.shape[:2]
    geometry = Geometry(*sides, strides, pads, precision, feature_group_count)
    if not by_channel and rhs.shape[:2] != (1, 1):
        return _conv(geometry, lhs, rhs)
    lowered = partial(depthwise if by_channel else _product, geometry)
    return lax.platform_dependent(lhs, rhs, cpu=lowered, default=geometry.native)


Conv = partial(nn.Conv, conv_general_dilated=conv)


def _forward(geometry, x, kernel):
    """[N, H, W, C], [kh, kw, C, O] -> [N, h, w, O], in the way that is fast on the CPU."""
    if geometry.filters(x, kernel.shape[-1]):
        return filtering.conv(x, kernel, geometry.pads, geometry.precision)
    way = _product if kernel.shape[-1] >= WIDE else Geometry.native
    return way(geometry, x, kernel)


def _product(geometry, x, kernel):
    """The same as one matrix product, of patches if the kernel has more than one pixel."""
    patches = geometry.patches(x)
    outer = kernel.shape[-1]
    # Two dimensions each, so that the gradients' products need no transposes.
    pairs = patches.reshape(-1, patches.shape[-1]), kernel.reshape(-1, outer)
    return lax.dot(*pairs, precision=geometry.precision).reshape(*patches.shape[:3], outer)


# A convolution is bilinear in image and kernel, and so are its two gradients. Each of the three is
# the gradient of the others, which closes them under differentiation.


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv(geometry, x, kernel):
    """[N, H, W, C], [kh, kw, C, O] -> [N, h, w, O]."""
    return _choose(partial(_forward, geometry), geometry.native, x, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _image_gradient(geometry, y, kernel):
    """[N, h, w, O], [kh, kw, C, O] -> [N, H, W, C]."""

    def native(y, kernel):
        x = jax.ShapeDtypeStruct((len(y), *geometry.image, kernel.shape[2]), y.dtype)
        return jax.linear_transpose(lambda x: geometry.native(x, kernel), x)(y)[0]

    return _choose(partial(_back, geometry), native, y, kernel)


def _back(geometry, y, kernel):
    """The image's gradient in the way that is fast on the CPU."""
    if geometry.strides == (1, 1):
        turned = geometry.back(y.shape[1:3])
        if turned.filters(y, kernel.shape[2]):
            return filtering.conv(y, kernel, turned.pads, geometry.precision, turned=True)
        if max(kernel.shape[2:]) < WIDE:
            return turned.native(y, lax.rev(kernel, (0, 1)).swapaxes(2, 3))
    return _scattered(geometry, y, kernel)


def _scattered(geometry, y, kernel):
    """The image's gradient as one product, whose patches are added to where they came from."""
    *sides, inner, outer = kernel.shape
    pairs = y.reshape(-1, outer), kernel.reshape(-1, outer)
    patches = lax.dot_general(*pairs, (((1,), (1,)), ((), ())), precision=geometry.precision)
    patches = patches.reshape(*y.shape[:3], *sides, inner)
    zero, total = jnp.zeros((), y.dtype), 0.0
    for at in itertools.product(*map(range, sides)):
        config = [(0, 0, 0)]
        for d, i in enumerate(at):
            low, step = i - geometry.pads[d][0], geometry.strides[d]
            end = low + step * (y.shape[1 + d] - 1) + 1
            config.append((low, geometry.image[d] - end, step - 1))
        part = lax.pad(patches[:, :, :, *at], zero, (*config, (0, 0, 0)))
        total = total + part.astype(jnp.promote_types(y.dtype, jnp.float32))
    return total.astype(y.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _kernel_gradient(geometry, x, y):
    """[N, H, W, C], [N, h, w, O] -> [kh, kw, C, O]."""

    def native(x, y):
        kernel = jax.ShapeDtypeStruct((*geometry.kernel, x.shape[-1], y.shape[-1]), y.dtype)
        return jax.linear_transpose(lambda kernel: geometry.native(x, kernel), kernel)(y)[0]

    return _choose(partial(_of_kernel, geometry), native, x, y)


def _of_kernel(geometry, x, y):
    """The kernel's gradient in the way that is fast on the CPU."""
    if geometry.filters(x, y.shape[-1]):
        return filtering.kernel_gradient(x, y, geometry.kernel, geometry.pads, geometry.precision)
    return _by_blocks(geometry, x, y)


def _by_blocks(geometry, x, y):
    """The kernel's gradient as products of patches, summed over blocks of examples."""
    (kh, kw), (count, h, w, outer) = geometry.kernel, y.shape
    inner = x.shape[-1]
    size = filtering.divisor(count, count if outer >= WIDE else PIXELS // (h * w))

    def add(i, total):
        patches = geometry.patches(lax.dynamic_slice_in_dim(x, i * size, size))
        # The narrow factor first: up to twice as fast.
        return total + lax.dot_general(
            lax.dynamic_slice_in_dim(y, i * size, size).reshape(-1, outer),
            patches.reshape(-1, kh * kw * inner),
            (((0,), (0,)), ((), ())),
            precision=geometry.precision,
            preferred_element_type=total.dtype,
        )

    total = jnp.zeros((outer, kh * kw * inner), jnp.promote_types(y.dtype, jnp.float32))
    total = lax.fori_loop(0, count // size, add, total)
    return total.T.reshape(kh, kw, inner, outer).astype(y.dtype)


def _choose(cpu, native, a, b):
    """`cpu(a, b)` on the CPU, `native(a, b)` elsewhere.

    A vmap over both arguments, as over models, is one after the other on the CPU: all cores work on
    each anyhow, and a grouped convolution would be slow.
    """

    @custom_vmap
    def one(a, b):
        return cpu(a, b)

    @one.def_vmap
    def _(_, batched, a, b):
        if all(batched):
            return lax.map(lambda pair: one(*pair), (a, b)), True
        axes = [0 if is_batched else None for is_batched in batched]
        return jax.vmap(cpu, axes)(a, b), True

    return lax.platform_dependent(a, b, cpu=one, default=native)


def _define_gradients():
    def saved(fn):
        return lambda geometry, a, b: (fn(geometry, a, b), (a, b))

    def conv_back(geometry, ab, y):
        x, kernel = ab
        return _image_gradient(geometry, y, kernel), _kernel_gradient(geometry, x, y)

    def image_back(geometry, ab, x):
        y, kernel = ab
        return _conv(geometry, x, kernel), _kernel_gradient(geometry, x, y)

    def kernel_back(geometry, ab, kernel):
        x, y = ab
        return _image_gradient(geometry, y, kernel), _conv(geometry, x, kernel)

    _conv.defvjp(saved(_conv), conv_back)
    _image_gradient.defvjp(saved(_image_gradient), image_back)
    _kernel_gradient.defvjp(saved(_kernel_gradient), kernel_back)


_define_gradients()


def pads_of(x: Array, kernel: Array, strides, padding):
    """Padding as two pairs, from pairs or a name."""
    if isinstance(padding, str):
        return lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    return padding
