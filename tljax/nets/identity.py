"""No network: inputs are the features, as given vectors or as pixels."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from tljax.nets.backbone import Input, run


class Identity(nn.Module):
    """features = sign(x) |x|^power of the flattened input, of unit length if `unit`.

    Power 1/2 on histograms gives Hellinger's distance: Arandjelovic and Zisserman 2012, section 2.

    Attributes:
      power: of every entry.
      unit: divide every vector by its length.
      input: what it is made for: anything, pixels in [0, 1].
    """

    power: float = 1.0
    unit: bool = False
    input: Input = Input(None, 0, (0.0,), (1.0,))

    @property
    def endpoints(self) -> tuple[str, ...]:
        return ('features',)

    @nn.compact
    def __call__(self, x: Array, since: str | None = None, until='features'):
        """[N, ...] -> features [N, D]."""
        return run({'features': self.features}, x, since, until)

    @nn.nowrap
    def features(self, x: Array) -> Array:
        x = x.reshape(x.shape[0], -1)
        if self.power != 1.0:
            x = jnp.sign(x) * jnp.abs(x) ** self.power
        if self.unit:
            x = x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        return x
