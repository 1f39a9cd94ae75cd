"""What stands between features and a discriminator: gradient reversal and multilinear maps."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array


@jax.custom_vjp
def reverse(x: Array, strength: Array) -> Array:
    """x itself, whose gradient is -strength times the one that comes back.

    Ganin et al. 2016, "Domain-adversarial training of neural networks", JMLR 17, section 4.2.

    Args:
      x: [...] float.
      strength: scalar float; has no gradient.
    """
    del strength
    return x


reverse.defvjp(
    lambda x, strength: (x, strength),
    lambda strength, gradient: (-strength * gradient, jnp.zeros_like(strength)),
)


class Multilinear(nn.Module):
    """Features and class probabilities as one vector: their outer product, or a random map of it.

    Where D * C is at most `limit` it is exact: all f_d g_c. Above, it is random: the elementwise
    product (f R) * (g S) / sqrt(width) with R [D, width] and S [C, width] of independent standard
    normal numbers, drawn once and kept in the collection 'fixed', so that no optimizer moves them.
    Inner products of randomised vectors are in expectation those of the exact ones.

    Reference: Long et al., 2018, "Conditional adversarial domain adaptation", section 3.2.

    Attributes:
      limit: the largest D * C that is mapped exactly.
      width: of the randomised map.
    """

    limit: int = 4096
    width: int = 1024

    @nn.compact
    def __call__(self, features: Array, probabilities: Array) -> Array:
        """[N, D], [N, C] -> [N, D * C] or [N, width]."""
        if features.shape[-1] * probabilities.shape[-1] <= self.limit:
            outer = features[:, :, None] * probabilities[:, None, :]
            return outer.reshape(len(outer), -1)
        mapped = features @ self.drawn('features', features.shape[-1])
        mapped *= probabilities @ self.drawn('probabilities', probabilities.shape[-1])
        return mapped / math.sqrt(self.width)

    def drawn(self, name: str, size: int) -> Array:
        draw = lambda: jax.random.normal(self.make_rng('params'), (size, self.width))
        return self.variable('fixed', name, draw).value
