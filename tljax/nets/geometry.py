"""What is static of a convolution: its sides, strides and padding, and what follows from them."""

import itertools
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from tljax.nets import filtering

NHWC = ('NHWC', 'HWIO', 'NHWC')
CHANNELS = 32  # from which fewer multiplications make up for transforms
ROWS = 512  # pixels of an output, from which they make up for the kernel's transform
FILLED = 2 / 3  # of the tiles of a row, from which there are fewer


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

    def filters(self, x: Array, outer: int) -> bool:
        """Whether to transform columns: of many channels, and of enough pixels for the kernel's.

        A few columns would fill too little of their tiles.
        """
        if self.strides != (1, 1) or not filtering.fits(x, self.kernel[1]):
            return False
        h, w = filtering.sides_of(x, self.kernel, self.pads)
        many = min(x.shape[-1], outer) >= CHANNELS and len(x) * h * w >= ROWS
        return many and w >= FILLED * filtering.OUTPUTS * filtering.tiles_of(w)

    def padded(self, x: Array) -> Array:
        config = ((0, 0, 0), *((*pair, 0) for pair in self.pads), (0, 0, 0))
        return lax.pad(x, jnp.zeros((), x.dtype), config)

    def seen(self, padded: Array, i: int, j: int) -> Array:
        """What the kernel's element at row i and column j sees: [N, h, w, C]."""
        down, right = (s - k + 1 for s, k in zip(padded.shape[1:3], self.kernel, strict=True))
        return padded[:, i : i + down : self.strides[0], j : j + right : self.strides[1]]

    def views(self, padded: Array) -> list[Array]:
        """What each of the kernel's elements sees, row by row."""
        return [self.seen(padded, *at) for at in itertools.product(*map(range, self.kernel))]

    def patches(self, x: Array) -> Array:
        """[N, h, w, kh * kw * C]."""
        return jnp.concatenate(self.views(self.padded(x)), -1)

    def back(self, out: tuple[int, int]) -> 'Geometry':
        """Of the image's gradient, as a convolution with the kernel turned by 180 degrees.

        It goes over the gradient of the output, whose sides are `out`, spread out by the strides.
        """
        pads, spread = [], []
        for side, k, stride, (low, _), n in zip(*self[:4], out, strict=True):
            spread.append(stride * (n - 1) + 1)
            pads.append((k - 1 - low, side + low - spread[-1]))
        return self._replace(image=tuple(spread), strides=(1, 1), pads=tuple(pads))
