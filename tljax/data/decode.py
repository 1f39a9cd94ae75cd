"""Images of any kind to uint8 [H, W, C] of the asked size and channels, with Pillow.

Pillow's bilinear filter antialiases; a decoder that does not would give other pixels, and weights
that were tuned on one lose accuracy on the other.
"""

import io
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

_MODES = {1: 'L', 3: 'RGB'}


class Pixels(NamedTuple):
    """What every image shall become.

    `fit` is 'squash' (to the square, whatever the aspect), 'crop' (the largest centred square) or
    'crop:0.875' (a centred square of that share of the short side: resize to 256 and cut 224).
    """

    size: int | None = None  # side of the square; None: as it is
    channels: int | None = None  # 1 or 3; None: what the source has
    fit: str = 'crop'


def check(pixels: Pixels) -> None:
    """Raises ValueError for a size, a number of channels or a fit that can't be."""
    if pixels.channels not in (None, 1, 3):
        raise ValueError(f'channels must be 1 (grey) or 3 (RGB), not {pixels.channels!r}')
    if pixels.size is not None and (not isinstance(pixels.size, int) or pixels.size < 1):
        raise ValueError(f'size must be a positive whole number of pixels, not {pixels.size!r}')
    _share(pixels.fit)


def from_file(path: str, pixels: Pixels) -> np.ndarray:
    """Decodes a file; see `from_bytes`."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(
            f"{path}: can't be read ({error.strerror}); restore or remove it"
        ) from None
    return from_bytes(data, path, pixels)


def from_bytes(data: bytes, name: str, pixels: Pixels) -> np.ndarray:
    """Decodes an image of any format Pillow reads, by content: uint8 [H, W, C].

    EXIF orientation is honoured, the first frame of an animation is taken, transparency lies over
    white, and more than 8 bits are scaled (not cut) to 8.

    Args:
      data: the encoded image.
      name: names it in messages, for example the path.
      pixels: the size and channels to give it.

    Raises:
      ValueError: empty, not an image, truncated or damaged; the message names the image.
    """
    if not data:
        raise ValueError(f'{name}: is empty (0 bytes); restore or remove it')
    try:
        with Image.open(io.BytesIO(data)) as image:
            if pixels.size is not None:
                # A large JPEG is shrunk by a power of two while it is decoded, which is faster, as
                # long as at least twice the asked pixels are left for the antialiased resize.
                side = math.ceil(2 * pixels.size / (_share(pixels.fit) or 1))
                image.draft(None, (side, side))
            image.load()
            if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                image = ImageOps.exif_transpose(image)
    except UnidentifiedImageError:
        start = data[:12].decode('ascii', 'replace')
        raise ValueError(
            f'{name}: is no image that Pillow can read (it begins with {start!r}); remove it or '
            'convert it to PNG or JPEG'
        ) from None
    except Image.DecompressionBombError as error:
        raise ValueError(f'{name}: is too large ({error}); shrink or remove it') from None
    except Exception as error:  # on damaged data, Pillow's decoders raise almost anything
        raise ValueError(
            f'{name}: is truncated or damaged ({error}); restore or remove it'
        ) from None
    return from_image(image, name, pixels)


def from_array(array: np.ndarray, name: str, pixels: Pixels) -> np.ndarray:
    """An image decoded already, uint8 [H, W], [H, W, 1] or [H, W, 3]: uint8 [H', W', C]."""
    array = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    channels = 1 if array.ndim == 2 else 3
    as_it_is = pixels.size is None or (
        array.shape[:2] == (pixels.size, pixels.size) and pixels.fit in ('crop', 'squash')
    )
    if as_it_is and pixels.channels in (None, channels):
        return array.reshape(*array.shape[:2], channels)
    return from_image(Image.fromarray(array), name, pixels)


def from_image(image: Image.Image, name: str, pixels: Pixels) -> np.ndarray:
    """A Pillow image to uint8 [H, W, C]."""
    image = _eight_bits(image, name)
    mode = _MODES[pixels.channels or (1 if image.mode in ('1', 'L', 'LA') else 3)]
    if image.has_transparency_data:
        image = image.convert('RGBA')
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
    if image.mode != mode:
        image = image.convert(mode)
    if pixels.size is not None:
        image = _resize(image, pixels)
    array = np.array(image)
    return array[:, :, None] if mode == 'L' else array


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Images of one deep channel (16 bits, 32 bits or floats) to 8 bits."""
    if not image.mode.startswith(('I', 'F')):
        return image
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if image.mode == 'F':
        if not (low >= 0 and high <= 1):
            raise ValueError(f'{name}: has floats in [{low}, {high}]; only [0, 1] can be scaled')
        return Image.fromarray(np.round(values * 255).astype(np.uint8))
    if low < 0 or high > 65535:
        raise ValueError(f'{name}: has values in [{low}, {high}]; at most 16 bits can be scaled')
    return Image.fromarray(np.round(values / 257).astype(np.uint8))


def _share(fit: str) -> float:
    """Of the short side, the share that a centre crop keeps; 0 for 'squash'."""
    if fit == 'squash':
        return 0.0
    kind, _, share = fit.partition(':')
    try:
        value = float(share or 1)
    except ValueError:
        value = 0.0
    if kind != 'crop' or not 0 < value <= 1:
        raise ValueError(f"fit must be 'squash', 'crop' or for example 'crop:0.875', not {fit!r}")
    return value


def _resize(image: Image.Image, pixels: Pixels) -> Image.Image:
    """Resizes and crops in one pass, which gives the pixels of resizing first."""
    size, (width, height) = pixels.size, image.size
    box = (0, 0, width, height)
    if share := _share(pixels.fit):
        side = share * min(width, height)
        step = side / size
        # Whole output pixels, so that an image of the right size is cut and not blurred.
        left, top = (round((length - side) / 2 / step) * step for length in (width, height))
        left, top = min(left, width - side), min(top, height - side)
        box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)
