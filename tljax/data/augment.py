"""Random augmentation on the device, inside the step, declared in one line: 'flip|shift:2'.

Every draw comes from the key, the operation's place in the line and the image's place in the batch,
so a batch is augmented in the same way alone, in a `vmap` over members or sharded.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from tljax.data.splits import did_you_mean
from tljax.types import Array, Key

Augment = Callable[[Key, Array], Array]


def build(spec: str | Sequence[str]) -> Augment:
    """Reads a declared augmentation.

    Args:
      spec: operations in the order they run, as a sequence or joined by '|'; '' is none at all.
        'flip' or 'flip:0.5'         mirrors left and right with that probability
        'shift:2'                    by up to that many whole pixels, black moves in
        'crop:4' or 'crop:4,reflect' pads by that many pixels (black or mirrored), cuts at random
        'rotate:15'                  by up to that many degrees, bilinear, black moves in
        'affine:10,0.3,0.2,2'        turn (degrees), shear, scale (shares) and shift (pixels)
        'color:0.2,0.2,0.2'          brightness, contrast and saturation by up to these shares
        'erase:0.25'                 one random rectangle with that probability

    Returns:
      `augment(key, images)`: float [N, H, W, C] in [0, 1] -> the same shape, also in [0, 1].

    Raises:
      ValueError: an operation is not known, or its numbers can't be.
    """
    terms = spec.split('|') if isinstance(spec, str) else list(spec)
    operations = [_read(term.strip()) for term in terms if term.strip()]

    def augment(key: Key, images: Array) -> Array:
        for place, operation in enumerate(operations):
            images = operation(jax.random.fold_in(key, place), images)
        return images

    return augment


def flip(probability: float = 0.5) -> Augment:
    """Mirrors left and right with a probability."""
    _within('flip', 'probability', probability, 1)

    def augment(key, images):
        mirror = _draw(key, images, 1)[:, 0] < probability
        return jnp.where(_spread(mirror), images[:, :, ::-1], images)

    return augment


def shift(pixels: float) -> Augment:
    """Moves by up to `pixels` whole pixels along each axis; black moves in."""
    return crop(pixels, 'black')


def crop(pixels: float, border: str = 'black') -> Augment:
    """Pads every side by `pixels` and cuts the original size at a random place.

    `border` is 'black' or 'reflect' (mirrored, without repeating the outermost pixels).
    """
    pad = _whole('crop', pixels)
    if border not in ('black', 'reflect'):
        options = ['black', 'reflect']
        raise ValueError(f'augment crop: no border {border!r}; {did_you_mean(border, options)}')

    def augment(key, images):
        around = ((0, 0), (pad, pad), (pad, pad), (0, 0))
        padded = jnp.pad(images, around, mode='constant' if border == 'black' else 'reflect')
        corner = (_draw(key, images, 2) * (2 * pad + 1)).astype(jnp.int32)
        return jax.vmap(_cut, (0, 0, None))(padded, corner, images.shape[1:])

    return augment


def rotate(degrees: float) -> Augment:
    """Turns around the centre by up to `degrees` either way, bilinear; black moves in."""
    _within('rotate', 'degrees', degrees, 180)

    def augment(key, images):
        angle = (2 * _draw(key, images, 1)[:, 0] - 1) * jnp.deg2rad(degrees)
        return jax.vmap(_warp)(images, _turns(angle), jnp.zeros((len(angle), 2)))

    return augment


def affine(degrees: float, shear: float = 0.0, scale: float = 0.0, pixels: float = 0.0) -> Augment:
    """Scales, shears, turns, then shifts, each of the seven numbers with probability 1/2.

    Koch et al. 2015, section 3.3: angle in [-degrees, degrees], shear of y by x and of x by y in
    [-shear, shear], scale of y and of x in [1 - scale, 1 + scale], shift of both in [-pixels,
    pixels]; bilinear around the centre, black moves in.
    """
    _within('affine', 'degrees', degrees, 180)
    _within('affine', 'shear', shear, 0.9)  # at 1, a square can become a line
    _within('affine', 'scale', scale, 0.9)
    _within('affine', 'pixels', pixels, float('inf'))
    most = jnp.array([jnp.deg2rad(degrees), shear, shear, scale, scale, pixels, pixels])

    def augment(key, images):
        draw = _draw(key, images, 14)
        value = (2 * draw[:, :7] - 1) * most * (draw[:, 7:] < 0.5)
        angle, of_y, of_x, height, width, *shifts = value.T
        # The way back, from a pixel of the result to the place that it shows.
        stretch = jnp.stack([1 / (1 + height), 1 / (1 + width)], -1)[:, :, None]
        one = jnp.ones_like(of_y)
        unsheared = _square(one, -of_y, -of_x, one) / (1 - of_y * of_x)[:, None, None]
        back = stretch * jnp.matmul(unsheared, _turns(angle), precision='highest')
        return jax.vmap(_warp)(images, back, jnp.stack(shifts, -1))

    return augment


def color(brightness: float, contrast: float = 0.0, saturation: float = 0.0) -> Augment:
    """Scales brightness, contrast and saturation by factors in [1 - x, 1 + x], in this order.

    Contrast moves away from the image's mean grey, saturation from each pixel's grey (which changes
    nothing in grey images). Values are clipped to [0, 1] at the end.
    """
    ranges = {'brightness': brightness, 'contrast': contrast, 'saturation': saturation}
    for name, value in ranges.items():
        _within('color', name, value, 1)

    def augment(key, images):
        factor = 1 + (2 * _draw(key, images, 3) - 1) * jnp.array(list(ranges.values()))
        light, contrast, saturation = (_spread(factor[:, i]) for i in range(3))
        images = images * light
        mean = _grey(images).mean((1, 2), keepdims=True)
        images = mean + contrast * (images - mean)
        grey = _grey(images)
        return jnp.clip(grey + saturation * (images - grey), 0, 1)

    return augment


def erase(probability: float, least: float = 0.02, most: float = 0.4) -> Augment:
    """Random erasing: fills one rectangle with a random colour, with a probability.

    The rectangle covers a share of the image in [least, most] and is at most 10/3 times as long as
    wide, and lies inside. Zhong et al., "Random erasing data augmentation", AAAI 2020, Algorithm 1,
    with two changes: the aspect is drawn (evenly in its logarithm) where the rectangle fits instead
    of trying again, and one colour fills it instead of one for each pixel, which are many draws.
    """
    _within('erase', 'probability', probability, 1)
    _within('erase', 'most', most, 1)
    _within('erase', 'least', least, most)

    def augment(key, images):
        draw = _draw(key, images, 5 + images.shape[3])
        height, width = images.shape[1:3]
        area = (least + (most - least) * draw[:, 1]) * height * width
        low = jnp.log(jnp.maximum(0.3, area / width**2))
        high = jnp.log(jnp.minimum(1 / 0.3, height**2 / area))
        aspect = jnp.exp(low + (high - low) * draw[:, 2])
        inside = _spread(draw[:, 0] < probability)
        sides = (jnp.sqrt(area * aspect), jnp.sqrt(area / aspect))
        for axis, (side, place) in enumerate(zip(sides, (draw[:, 3], draw[:, 4]), strict=True), 1):
            length = images.shape[axis]
            side = jnp.clip(jnp.round(side), 1, length)
            first = jnp.floor(place * (length - side + 1))
            shape = [length if i == axis else 1 for i in range(4)]
            pixel = jnp.arange(length).reshape(shape)
            inside &= (pixel >= _spread(first)) & (pixel < _spread(first + side))
        return jnp.where(inside, draw[:, None, None, 5:].astype(images.dtype), images)

    return augment


OPERATIONS = {
    'flip': flip,
    'shift': shift,
    'crop': crop,
    'rotate': rotate,
    'affine': affine,
    'color': color,
    'erase': erase,
}


def _read(term: str) -> Augment:
    """'crop:4,reflect' -> crop(4.0, 'reflect')."""
    name, _, rest = term.partition(':')
    if name not in OPERATIONS:
        raise ValueError(f'there is no augmentation {name!r}; {did_you_mean(name, OPERATIONS)}')
    values = [value.strip() for value in rest.split(',')] if rest else []
    try:
        return OPERATIONS[name](*map(_number, values))
    except TypeError:
        summary = OPERATIONS[name].__doc__.partition('\n')[0]
        raise ValueError(
            f'augment {term!r}: {len(values)} values do not fit. {name}: {summary}'
        ) from None


def _number(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value


def _within(operation: str, name: str, value: float, top: float) -> None:
    if isinstance(value, str) or not 0 <= value <= top:
        raise ValueError(f'augment {operation}: {name} must be in [0, {top:g}], not {value!r}')


def _whole(operation: str, value: float) -> int:
    if isinstance(value, str) or not float(value).is_integer() or value < 0:
        raise ValueError(f'augment {operation}: expected a whole number of pixels, not {value!r}')
    return int(value)


def _draw(key: Key, images: Array, count: int) -> Array:
    """Uniform numbers [N, count]; an image's depend on the key and its place only, not on N."""
    places = jnp.arange(images.shape[0])
    one = lambda place: jax.random.uniform(jax.random.fold_in(key, place), (count,))
    return jax.vmap(one)(places)


def _spread(values: Array) -> Array:
    """[N] -> [N, 1, 1, 1]."""
    return values[:, None, None, None]


def _grey(images: Array) -> Array:
    """Luma [N, H, W, 1] (ITU-R BT.601, as Pillow's)."""
    if images.shape[-1] != 3:
        return images.mean(-1, keepdims=True)
    weights = jnp.array([[0.299], [0.587], [0.114]], images.dtype)
    return jnp.matmul(images, weights, precision='highest')  # accelerators would round it


def _cut(image: Array, corner: Array, shape: tuple[int, int, int]) -> Array:
    # A slice under vmap becomes one gather of whole rows, which beats one-hot products, shifts by
    # powers of two and take_along_axis on CPU (0.1 ms for 128 images of 28x28).
    return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), shape)


def _square(a: Array, b: Array, c: Array, d: Array) -> Array:
    """Matrices [[a, b], [c, d]]: four times [N] -> [N, 2, 2]."""
    return jnp.stack([jnp.stack([a, b], -1), jnp.stack([c, d], -1)], -2)


def _turns(angle: Array) -> Array:
    """Where a pixel of a turned image comes from, (y, x) each: radians [N] -> [N, 2, 2]."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)  # counter-clockwise as seen, with y downwards
    return _square(cos, sin, -sin, cos)


def _warp(image: Array, back: Array, shift: Array) -> Array:
    """[H, W, C] as seen through p -> back (p - shift), p = (y, x) from the centre; bilinear."""
    height, width, channels = image.shape
    middle = jnp.array([(height - 1) / 2, (width - 1) / 2])
    y = (jnp.arange(height) - middle[0] - shift[0])[:, None]
    x = jnp.arange(width) - middle[1] - shift[1]
    row = back[0, 0] * y + back[0, 1] * x + middle[0]
    column = back[1, 0] * y + back[1, 1] * x + middle[1]
    flat = jnp.pad(image, ((1, 1), (1, 1), (0, 0))).reshape(-1, channels)  # black outside

    def corner(i, turned):
        top, left = jnp.floor(row) + i // 2, jnp.floor(column) + i % 2
        weight = (1 - jnp.abs(row - top)) * (1 - jnp.abs(column - left))
        place = (jnp.clip(top, -1, height) + 1) * (width + 2) + jnp.clip(left, -1, width) + 1
        return turned + weight[..., None].astype(image.dtype) * flat[place.astype(jnp.int32)]

    # A loop, because XLA on CPU fuses bare gathers into every use of the result and repeats them:
    # ten times slower before `color`, and `optimization_barrier` does not keep it from that.
    return jax.lax.fori_loop(0, 4, corner, jnp.zeros_like(image))
