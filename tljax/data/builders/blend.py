"""MNIST-M made anew: MNIST digits blended with patches of photographs or of textures."""

from collections.abc import Iterator, Sequence

import numpy as np

SIDE = 32  # of the published images, whose digits are MNIST's 28x28 with a border of 2
_SEED = {'train': 0, 'test': 1}


def blend(digit: np.ndarray, patch: np.ndarray) -> np.ndarray:
    """|255 d - patch|, where d is 1 on the strokes of the digit and 0 elsewhere.

    Ganin et al. 2016, "Domain-adversarial training of neural networks", section 5.2.4: the absolute
    difference of digit and patch, channel by channel. In the published files d is not the grey
    value: every pixel that is not quite black counts as stroke.

    Args:
      digit: uint8 [28, 28].
      patch: uint8 [32, 32, 3].

    Returns:
      uint8 [32, 32, 3].
    """
    stroke = np.pad(digit, (SIDE - len(digit)) // 2)[..., None] > 0
    return np.where(stroke, 255 - patch, patch)


def patches(split: str, count: int, photos: Sequence[np.ndarray] = ()) -> Iterator[np.ndarray]:
    """`count` seeded patches uint8 [32, 32, 3]: cut anywhere from any photo, or textures.

    Args:
      split: 'train' or 'test', which have different seeds.
      count: how many.
      photos: uint8 [H, W, 3] each; none: textures.

    Raises:
      ValueError: a photo is smaller than a patch.
    """
    for row in range(count):
        # RandomState: NumPy promises never to change its numbers. One a patch, so that each is
        # the same whatever comes before it.
        random = np.random.RandomState([_SEED[split], row])
        yield _cut(photos[random.randint(len(photos))], random) if photos else texture(random)


def _cut(photo: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    top, left = (random.randint(length - SIDE + 1) for length in photo.shape[:2])
    return photo[top : top + SIDE, left : left + SIDE]


def texture(random: np.random.RandomState) -> np.ndarray:
    """A texture uint8 [32, 32, 3]: noise of several scales between two muted colours.

    The weights of the scales range from smooth shades to fine grain, and half of the textures have
    a sharp edge, beyond which there is a third colour. All arithmetic is exact up to single
    divisions, so that the bytes are the same on every machine.
    """
    colours = random.randint(0, 256, (3, 1)) + random.randint(-48, 49, (3, 3)).astype(np.float64)
    weights = random.randint(0, 16, 5)
    weights[random.randint(5)] += 16
    field = sum(weight * _noise(random, 2**k) for k, weight in enumerate(weights.tolist()))
    low, high = field.min(), field.max()
    share = ((field - low) / (high - low))[..., None]
    beyond = (_noise(random, 2)[..., None] > 128) & (random.randint(2) == 1)
    image = colours[0] + share * (np.where(beyond, colours[2], colours[1]) - colours[0])
    return np.clip(image, 0, 255).astype(np.uint8)


def _noise(random: np.random.RandomState, cells: int) -> np.ndarray:
    """Noise float64 [32, 32] in [0, 256): a random lattice of cells x cells, interpolated."""
    lattice = random.randint(0, 256, (cells + 1, cells + 1)).astype(np.float64)
    at = np.arange(SIDE) * cells / SIDE  # exact, for cells is a power of two
    low = at.astype(int)
    share = at - low
    rows = lattice[low] + share[:, None] * (lattice[low + 1] - lattice[low])
    return rows[:, low] + share * (rows[:, low + 1] - rows[:, low])
