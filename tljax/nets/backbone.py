"""What every backbone shares: named endpoints, slices between them, and a declared input.

A backbone is a Linen module that can run any slice of itself. Its `__call__` is one compact body
that builds a dict of explicitly named stages and hands it to `run`:

    @property
    def endpoints(self):
        return ('stem', 'features')

    @nn.compact
    def __call__(self, x, since=None, until='features'):
        stem = Conv(16, (3, 3), name='stem')
        stages = {
            'stem': lambda x: nn.relu(stem(x)),
            'features': lambda x: x.mean((1, 2)),
        }
        return run(stages, x, since, until)

A stage that is built and not called makes no parameters: every slice works on one parameter tree.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from tljax.types import unknown


class Input(NamedTuple):
    """The images a backbone was made for; the one place where images are normalised.

    Attributes:
      size: side in pixels, required or usual; None for any.
      channels: colour channels; 0: any, or feature vectors.
      mean: subtracted from each channel of an image in [0, 1]; of length 1 or `channels`.
      std: divides each channel thereafter.
    """

    size: int | None = None
    channels: int = 3
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)

    def normalise(self, image: Array) -> Array:
        """Turns images into what the backbone takes: (image - mean) / std.

        Args:
          image: [..., H, W, channels], uint8 in 0..255 or float in [0, 1]; or vectors [..., D].

        Returns:
          [..., H, W, channels] float32.

        Raises:
          ValueError: the image has another number of channels.
        """
        image = jnp.asarray(image)
        if self.channels and image.shape[-1] != self.channels:
            raise ValueError(f'{self.channels} channels expected, got an image of {image.shape}')
        scale = 255.0 if image.dtype == jnp.uint8 else 1.0
        mean, std = jnp.asarray(self.mean, jnp.float32), jnp.asarray(self.std, jnp.float32)
        return (image.astype(jnp.float32) / scale - mean) / std


def run(
    stages: Mapping[str, Callable[[Array], Array]],
    x: Array,
    since: str | None = None,
    until: str | tuple[str, ...] = 'features',
) -> Array | dict[str, Array]:
    """Runs the stages after `since` up to and with `until`.

    Args:
      stages: functions in their order; the names are the endpoints.
      x: the output of endpoint `since`; the normalised images [N, H, W, C] if that is None.
      since: endpoint that is already computed.
      until: endpoint or endpoints to return; equal to `since` gives x itself (a cached endpoint).

    Returns:
      The output of `until`, or a dict from name to output if `until` is a tuple.

    Raises:
      ValueError: an unknown endpoint, none asked for, or one that lies before `since`.
    """
    names = tuple(stages)
    wanted = (until,) if isinstance(until, str) else tuple(until)
    if not wanted:
        raise ValueError(f'no endpoint asked for; there are {", ".join(names)}')
    for name in wanted if since is None else (since, *wanted):
        if name not in stages:
            raise unknown('endpoint', name, names)
    begin = -1 if since is None else names.index(since)
    for name in wanted:
        if names.index(name) < begin:
            raise ValueError(
                f'endpoint {name!r} comes before {since!r}, from which it was asked for; '
                f'the order is {", ".join(names)}'
            )
    found = {since: x}
    for name in names[begin + 1 : max(map(names.index, wanted)) + 1]:
        x = found[name] = stages[name](x)
    return found[until] if isinstance(until, str) else {name: found[name] for name in wanted}
