"""Depthwise convolution on a CPU: a sum of products of shifted images.

XLA's own takes channels one by one, forward and worse in its gradients. A sum over the kernel's
positions is one pass over all channels: 15 to 30 times faster forward, and 10 to 40 times with
gradients, at 3 to 48 pixels and 32 to 960 channels.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax


def _views(geometry, x: Array) -> list[Array]:
    """The padded image as each position of the kernel sees it: [N, h, w, C]."""
    # Half precision is summed in single, as a matrix product would.
    return geometry.views(geometry.padded(x).astype(jnp.promote_types(x.dtype, jnp.float32)))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def depthwise(geometry, x: Array, kernel: Array) -> Array:
    """sum over i, j of kernel[i, j, 0] * x shifted by (i, j): [N, H, W, C] -> [N, h, w, C].

    Args:
      geometry: what is static; see `geometry.Geometry`.
      x: [N, H, W, C].
      kernel: [kh, kw, 1, C].
    """
    weights = kernel.reshape(-1, kernel.shape[-1])
    rows = zip(_views(geometry, x), weights, strict=True)
    return sum(view * row for view, row in rows).astype(x.dtype)


def _image_gradient(geometry, y: Array, kernel: Array) -> Array:
    """The same sum, over the spread-out gradient and the kernel turned round."""
    inside = ((0, 0, 0), *((0, 0, stride - 1) for stride in geometry.strides), (0, 0, 0))
    spread = lax.pad(y, jnp.zeros((), y.dtype), inside)
    return depthwise(geometry.back(y.shape[1:3]), spread, lax.rev(kernel, (0, 1)))


def _kernel_gradient(geometry, x: Array, y: Array, kernel: Array) -> Array:
    """sum over examples and positions of x shifted times y; example by example, in the cache."""

    def add(totals, example):
        one, gradient = example
        views = _views(geometry, one[None])
        return [total + view[0] * gradient for total, view in zip(totals, views, strict=True)], None

    zero = jnp.zeros(y.shape[1:], jnp.promote_types(y.dtype, jnp.float32))
    totals, _ = lax.scan(add, [zero] * (kernel.shape[0] * kernel.shape[1]), (x, y))
    rows = jnp.stack([total.sum((0, 1)) for total in totals])
    return rows.reshape(kernel.shape).astype(kernel.dtype)


def _backward(geometry, kept, y):
    x, kernel = kept
    return _image_gradient(geometry, y, kernel), _kernel_gradient(geometry, x, y, kernel)


depthwise.defvjp(lambda geometry, *xk: (depthwise(geometry, *xk), xk), _backward)
