"""Maps and tokens of an endpoint to one vector an image."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp

from tljax.types import Array, unknown


def _positions(x: Array) -> Array:
    """[N, ..., C] -> [N, positions, C], in float32."""
    return x.reshape(x.shape[0], -1, x.shape[-1]).astype(jnp.float32)


# [N, H, W, C] or [N, T, C] -> [N, D]
POOLINGS: Mapping[str, Callable[[Array], Array]] = {
    'mean': lambda x: _positions(x).mean(1),
    'max': lambda x: _positions(x).max(1),
    'mean_max': lambda x: jnp.concatenate([_positions(x).mean(1), _positions(x).max(1)], -1),
    'first': lambda x: _positions(x)[:, 0],  # of a transformer: the class token
    'flat': lambda x: _positions(x).reshape(x.shape[0], -1),
    'none': lambda x: x.astype(jnp.float32),  # all of the map
}


def pool(x: Array, how: str) -> Array:
    """The output of an endpoint in float32, pooled over positions; vectors [N, D] stay as they are.

    Args:
      x: [N, H, W, C], [N, T, C] or [N, D].
      how: a key of `POOLINGS`.

    Raises:
      ValueError: there is no such pooling.
    """
    if how not in POOLINGS:
        raise unknown('pooling', how, POOLINGS)
    return POOLINGS[how](x) if x.ndim > 2 else x.astype(jnp.float32)
