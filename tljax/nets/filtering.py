"""Convolution of stride 1 by minimal filtering: fewer multiplications by transforming the columns.

In a row of an image, m adjacent outputs of k taps take m + k - 1 multiplications in place of m * k
if image and kernel are evaluated at as many points, as polynomials are for their product (Toom,
1963; Cook, 1966; Winograd, 1980, "Arithmetic complexity of computations"; for convolutional nets
Lavin and Gray, 2016, arXiv:1509.09308, equations 5 and 6). Only columns are transformed: with rows,
too, there would be more to move than to multiply.

`conv` and `kernel_gradient` are for images with their channels last, `windows` is for a pool.
"""

import operator
from fractions import Fraction
from functools import cache, reduce

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

OUTPUTS = 4  # of one tile; more would cost digits
POINTS = tuple(map(Fraction, ('0', '1', '-1', '2', '-2', '1/2', '-1/2')))
TAPS = range(2, len(POINTS) - OUTPUTS + 3)  # of a kernel's row: those there are points for
CACHED = 2**19  # elements of one point's patches that stay in the cache until they are multiplied
HELD = 2**24  # and those that do not crowd the memory
SWAPPED = 128  # channels from which a product swaps those of a kernel


def fits(x: Array, taps: int) -> bool:
    """Whether that many taps in a row can be filtered, and in digits enough: float32's or more."""
    return taps in TAPS and x.dtype in (jnp.float32, jnp.float64)


def sides_of(x: Array, kernel: tuple[int, ...], pads) -> list[int]:
    """Of the output of stride 1: [N, H, W, C], (kh, kw, ...) -> [h, w]."""
    return [n + sum(pad) - k + 1 for n, pad, k in zip(x.shape[1:3], pads, kernel, strict=False)]


def tiles_of(columns: int) -> int:
    """Those that a row of so many outputs takes, the last one filled up."""
    return -(-columns // OUTPUTS)


def conv(x: Array, kernel: Array, pads, precision=None, turned: bool = False) -> Array:
    """Convolution of stride 1.

    For each point there is one product, of patches of the rows.

    Args:
      x: [N, H, W, C].
      kernel: [kh, kw, C, O]; [kh, kw, O, C] if `turned`.
      pads: two pairs, of zeros around x.
      precision: of the products.
      turned: the kernel is turned by 180 degrees and its channels are swapped, as for the gradient
        of an image.

    Returns:
      [N, h, w, O].
    """
    (kh, kw), (h, w) = kernel.shape[:2], sides_of(x, kernel.shape, pads)
    inner, outer = kernel.shape[2:][:: -1 if turned else 1]
    a, g, _ = matrices(kw)
    tiles = tiles_of(w)
    if turned:
        kernel = lax.rev(kernel, (0, 1))
        # Many are left for the products to swap: of 512 it would take longer than they do.
        turned = min(inner, outer) >= SWAPPED
        kernel = kernel.swapaxes(0, 2) if turned else kernel.swapaxes(2, 3)
    kernels = _combined(g, [kernel[:, i] for i in range(kw)])
    kernels = [one.reshape(outer, -1).T if turned else one.reshape(-1, outer) for one in kernels]

    def block(x):
        pairs = zip(_patches(x, (kh, kw), pads), kernels, strict=True)
        y = _combined(a, [jnp.dot(*pair, precision=precision) for pair in pairs])
        return jnp.stack(y, 1).reshape(len(x), h, OUTPUTS * tiles, outer)[:, :, :w]

    size = divisor(len(x), CACHED // (h * tiles * kh * inner))
    if size == len(x):
        return block(x)
    return lax.map(block, x.reshape(-1, size, *x.shape[1:])).reshape(len(x), h, w, outer)


def kernel_gradient(x: Array, y: Array, sides: tuple[int, int], pads, precision=None) -> Array:
    """That of `conv`'s kernel: the transform's transpose of the products' own gradients.

    Args:
      x: [N, H, W, C].
      y: [N, h, w, O], the gradient of the output.
      sides: of the kernel.
      pads: two pairs, of zeros around x.
      precision: of the products.

    Returns:
      [kh, kw, C, O].
    """
    (kh, kw), (count, h, w, outer), inner = sides, y.shape, x.shape[-1]
    a, g, _ = matrices(kw)
    tiles = tiles_of(w)

    def block(x, y):
        y = jnp.pad(y, ((0, 0), (0, 0), (0, OUTPUTS * tiles - w), (0, 0)))
        y = y.reshape(-1, OUTPUTS, outer)
        y = _combined(a.T, [y[:, i] for i in range(OUTPUTS)])
        pairs = zip(y, _patches(x, (kh, kw), pads), strict=True)
        rows = (((0,), (0,)), ((), ()))
        return jnp.stack([lax.dot_general(*pair, rows, precision) for pair in pairs])

    size = divisor(count, HELD // (h * tiles * kh * inner))
    if size == count:
        total = block(x, y)
    else:
        blocks = [one.reshape(-1, size, *one.shape[1:]) for one in (x, y)]
        zeros = jnp.zeros((len(g), outer, kh * inner), y.dtype)
        total = lax.scan(lambda total, one: (total + block(*one), None), zeros, tuple(blocks))[0]
    kernel = jnp.stack(_combined(g.T, list(total)))
    return kernel.reshape(kw, outer, kh, inner).transpose(2, 0, 3, 1)


def _patches(x, kernel, pads):
    """Of each point what a row of the output sees: a list of [N * h * tiles, kh * C]."""
    (kh, kw), (h, w) = kernel[:2], sides_of(x, kernel, pads)
    tiles = tiles_of(w)
    x = fitted(x, pads, (h + kh - 1, OUTPUTS * tiles + kw - 1))
    _, _, b = matrices(kw)
    last = OUTPUTS * (tiles - 1) + 1
    points = _combined(b, [x[:, :, i : i + last : OUTPUTS] for i in range(len(b))])
    rows = [jnp.stack([point[:, i : i + h] for i in range(kh)], 3) for point in points]
    return [one.reshape(-1, kh * x.shape[-1]) for one in rows]


def _combined(matrix, parts):
    """For each row the sum of the parts, weighted: most weights are 0 or ±1, and cost nothing."""
    return [
        reduce(operator.add, [float(c) * part for c, part in zip(row, parts, strict=True) if c])
        for row in matrix
    ]


def divisor(count: int, most: int) -> int:
    """The largest that is not above `most`, or 1."""
    return next(n for n in range(min(max(most, 1), count), 0, -1) if count % n == 0)


def windows(x: Array, kernel: Array, pads, sides: tuple[int, int]) -> Array:
    """Convolution of stride 1, its outputs by their place in windows of 2 x 2.

    Tiles of the columns are evaluated at the points by one product, rows are patches of all that a
    window sees, and each point is a product of its own: all products of contiguous matrices.

    Args:
      x: [C, H, W, N], images last.
      kernel: [kh, kw, C, O].
      pads: two pairs, of zeros around x.
      sides: of the output, in windows.

    Returns:
      [4, O, *sides, N]: first, row by row the members of a window.
    """
    (kh, kw, inner, outer), (h, w) = kernel.shape, sides
    a, g, b = (one.astype(x.dtype) for one in matrices(kw))
    tiles, reach = tiles_of(2 * w), -(-(kh + 1) // 2)  # a window's patch reaches over windows
    wanted = 2 * (h + reach - 1), OUTPUTS * tiles + kw - 1
    x = fitted(x, pads, wanted)
    spread = np.zeros((len(b), tiles, wanted[1]), x.dtype)
    for tile in range(tiles):
        spread[:, tile, tile * OUTPUTS :][:, : len(b)] = b
    spread = spread.reshape(-1, wanted[1])
    # Broadcast, for a product with one matrix for all rows would be slower.
    rows = x.reshape(inner * wanted[0], wanted[1], -1)
    x = jnp.broadcast_to(spread, (len(rows), *spread.shape)) @ rows
    x = x.reshape(inner, wanted[0] // 2, 2, len(b), tiles, -1).transpose(3, 2, 0, 1, 4, 5)
    patches = jnp.concatenate([x[:, :, :, i : i + h] for i in range(reach)], 1)
    kernel = jnp.einsum('pw,hwco->phco', g, kernel)
    kernel = jnp.stack(
        [jnp.pad(kernel, ((0, 0), (i, 2 * reach - kh - i), (0, 0), (0, 0))) for i in range(2)]
    )
    kernel = kernel.transpose(1, 0, 4, 2, 3).reshape(len(b), 2 * outer, -1)
    y = kernel @ patches.reshape(*kernel.shape[::2], -1)
    y = (a @ y.reshape(len(b), -1)).reshape(-1, 2, 2, outer, h, tiles, x.shape[-1])
    # [tile's window, column, row, O, h, tile, N]
    y = y.transpose(2, 1, 3, 4, 5, 0, 6).reshape(4, outer, h, -1, x.shape[-1])
    return y[:, :, :, :w]


def fitted(x: Array, pads, sides) -> Array:
    """Its two axes in the middle behind that much padding, filled up or cut to these sides."""
    config = [
        (low, side - low - has, 0)
        for (low, _), side, has in zip(pads, sides, x.shape[1:3], strict=True)
    ]
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *config, (0, 0, 0)))


@cache
def matrices(taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A, G and B of y = A ((G g) * (B d)), where y[i] = sum_j g[j] d[i + j].

    Polynomials are evaluated at the first of 0, ±1, ±2, ±1/2, and at infinity. The transposes of
    evaluation and interpolation turn their product into the filter (Lavin and Gray's equation 6,
    whose A and B are the transposes of these). Rows of B are scaled to a largest element of 1.

    Args:
      taps: of g.

    Returns:
      A [OUTPUTS, P], G [P, taps] and B [P, P] of float64, where P is OUTPUTS + taps - 1.

    Raises:
      ValueError: more points are wanted than there are.
    """
    count = OUTPUTS + taps - 1
    if count > len(POINTS) + 1:
        raise ValueError(f'{OUTPUTS} outputs of {taps} taps: {count} points, of {len(POINTS) + 1}')
    points = POINTS[: count - 1]
    a, g, whole = (_evaluation(points, size) for size in (OUTPUTS, taps, count))
    b = _inverse(whole).T
    scale = abs(b).max(1, keepdims=True)
    return tuple(np.asarray(one, np.float64) for one in (a.T, g * scale, b / scale))


def _evaluation(points, size):
    """Of a polynomial of that many coefficients at the points and at infinity, as fractions."""
    rows = [[point**power for power in range(size)] for point in points]
    return np.array([*rows, [*[Fraction(0)] * (size - 1), Fraction(1)]], object)


def _inverse(matrix):
    """By Gauss and Jordan's elimination, exactly."""
    count = len(matrix)
    rows = np.concatenate([matrix, np.eye(count, dtype=int) * Fraction(1)], 1)
    for at in range(count):
        pivot = next(row for row in range(at, count) if rows[row, at])
        rows[[at, pivot]] = rows[[pivot, at]]
        rows[at] = rows[at] / rows[at, at]
        for row in range(count):
            if row != at:
                rows[row] = rows[row] - rows[row, at] * rows[at]
    return rows[:, count:]
