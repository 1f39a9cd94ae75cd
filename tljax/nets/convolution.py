"""Convolution whose gradients are fast on the CPU too.

XLA's convolution on the CPU is fast for [N, H, W, C] images and [kh, kw, C, O] kernels, and slow
for the layouts that its own gradients ask for: inside `scan` or `fori_loop` 10 to 100 times slower.
So is the grouped convolution that `vmap` over models makes of it. So `conv` has gradients of its
own there: for the input, a plain convolution again; for the kernel, patches and a matrix product,
in blocks of examples that stay in the cache. Kernels of one pixel are matrix products, and a
depthwise convolution, which is 30 to 200 times slower than it need be, is a sum of products of
shifted images. Other platforms keep the native ones.
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap

from tljax.nets.depthwise import depthwise

NHWC = ('NHWC', 'HWIO', 'NHWC')
BLOCK = 2**18  # patches, in elements, of one block of examples: about a core's cache


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
    lowered = partial(depthwise if by_channel else _pointwise, geometry)
    return lax.platform_dependent(lhs, rhs, cpu=lowered, default=geometry.native)


Conv = partial(nn.Conv, conv_general_dilated=conv)


class Geometry(NamedTuple):
    """What is static of a convolution: sides of image and kernel, strides, padding and so on."""

    image: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[tuple[int, int], tuple[int, int]]
    precision: object
    groups: int = 1

    def native(self, x: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(
            x,
            kernel,
            self.strides,
            self.pads,
            dimension_numbers=NHWC,
            feature_group_count=self.groups,
            precision=self.precision,
        )

    def padded(self, x: Array) -> Array:
        config = ((0, 0, 0), *((*pair, 0) for pair in self.pads), (0, 0, 0))
        return lax.pad(x, jnp.zeros((), x.dtype), config)

    def seen(self, padded: Array, i: int, j: int) -> Array:
        """What the kernel's element at row i and column j sees: [N, h, w, C]."""
        down, right = (s - k + 1 for s, k in zip(padded.shape[1:3], self.kernel, strict=True))
        return padded[:, i : i + down : self.strides[0], j : j + right : self.strides[1]]


def _pointwise(geometry, x, kernel):
    """[N, H, W, C], [1, 1, C, O] -> [N, h, w, O]."""
    seen = geometry.seen(geometry.padded(x), 0, 0)
    *_, inner, outer = kernel.shape
    # Two dimensions each, so that the gradients' products need no transposes.
    pairs = seen.reshape(-1, inner), kernel.reshape(inner, outer)
    return lax.dot(*pairs, precision=geometry.precision).reshape(*seen.shape[:3], outer)


# A convolution is bilinear in image and kernel, and so are its two gradients. Each of the three is
# the gradient of the others, which closes them under differentiation.


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv(geometry, x, kernel):
    """[N, H, W, C], [kh, kw, C, O] -> [N, h, w, O]."""
    return _choose(geometry.native, geometry.native, x, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _image_gradient(geometry, y, kernel):
    """[N, h, w, O], [kh, kw, C, O] -> [N, H, W, C]."""

    def native(y, kernel):
        x = jax.ShapeDtypeStruct((len(y), *geometry.image, kernel.shape[2]), y.dtype)
        return jax.linear_transpose(lambda x: geometry.native(x, kernel), x)(y)[0]

    def plain(y, kernel):
        pads = []
        for side, k, stride, (low, _), out in zip(*geometry[:4], y.shape[1:3], strict=True):
            before = k - 1 - low
            pads.append((before, side + k - 1 - before - (stride * (out - 1) + 1)))
        return lax.conv_general_dilated(
            y,
            lax.rev(kernel, (0, 1)).swapaxes(2, 3),
            (1, 1),
            pads,
            lhs_dilation=geometry.strides,
            dimension_numbers=NHWC,
            precision=geometry.precision,
        )

    return _choose(plain, native, y, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _kernel_gradient(geometry, x, y):
    """[N, H, W, C], [N, h, w, O] -> [kh, kw, C, O]."""

    def native(x, y):
        kernel = jax.ShapeDtypeStruct((*geometry.kernel, x.shape[-1], y.shape[-1]), y.dtype)
        return jax.linear_transpose(lambda kernel: geometry.native(x, kernel), kernel)(y)[0]

    return _choose(partial(_by_blocks, geometry), native, x, y)


def _by_blocks(geometry, x, y):
    """The kernel's gradient as a product of patches, summed over blocks of examples."""
    (kh, kw), (sh, sw) = geometry.kernel, geometry.strides
    count, h, w, outer = y.shape
    inner = x.shape[-1]
    most = max(1, min(count, BLOCK // max(1, h * w * kh * kw * inner)))
    size = next(n for n in range(most, 0, -1) if count % n == 0)
    config = ((0, 0, 0), *((*pair, 0) for pair in geometry.pads), (0, 0, 0))

    def add(i, total):
        part = lax.pad(lax.dynamic_slice_in_dim(x, i * size, size), jnp.zeros((), x.dtype), config)
        flat = lax.dynamic_slice_in_dim(y, i * size, size).reshape(-1, outer)
        # Columns are joined first, so that a row of the kernel is one slice and one product.
        columns = [part[:, :, j : j + sw * (w - 1) + 1 : sw] for j in range(kw)]
        columns = jnp.concatenate(columns, -1)
        rows = [columns[:, i : i + sh * (h - 1) + 1 : sh] for i in range(kh)]
        product = partial(
            lax.dot_general,
            dimension_numbers=(((0,), (0,)), ((), ())),
            precision=geometry.precision,
            preferred_element_type=total.dtype,
        )
        return total + jnp.stack([product(row.reshape(-1, kw * inner), flat) for row in rows])

    total = jnp.zeros((kh, kw * inner, outer), jnp.promote_types(y.dtype, jnp.float32))
    total = lax.fori_loop(0, count // size, add, total)
    return total.reshape(kh, kw, inner, outer).astype(y.dtype)


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
