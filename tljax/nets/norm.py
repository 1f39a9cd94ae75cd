"""Layers that act differently in training: batch normalisation, dropout, stochastic depth.

None of them takes a `train` flag. Where a layer's variables lie says whether it is live:

- in `batch_stats`, with that collection mutable: live. The layer is being trained.
- in `kept_stats`: not live, whatever is mutable. The layer is frozen inside something that trains.
- nothing mutable: not live. This is evaluation.

With the collection `moments` mutable a batch normalisation also leaves there, for every example,
the mean and the variance of what comes in, so that its statistics can be estimated anew.

Initialising is never live. Dropout and stochastic depth have no statistics and keep a marker
variable `on` instead, so one rule moves all three.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from tljax.partition import KEPT, LIVE

MOMENTS = 'moments'


def home(module: nn.Module, name: str) -> str:
    """The collection in which a module's variable lies, or is to lie."""
    return KEPT if module.has_variable(KEPT, name) else LIVE


def live(module: nn.Module, name: str) -> bool:
    """Whether a module acts as in training, told by where its variable `name` lies."""
    return (
        home(module, name) == LIVE
        and module.is_mutable_collection(LIVE)
        and not module.is_initializing()
    )


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but that of the channels.

    y = scale * (x - mean) / sqrt(variance + epsilon) + bias

    Live, mean and (biased) variance are those of the batch, which under `jit` is the global one,
    and the running ones move: running <- momentum * running + (1 - momentum) * batch. Otherwise
    they are the running ones. Statistics are computed in float32.

    Reference: Ioffe and Szegedy, 2015, arXiv:1502.03167, Algorithms 1 and 2.

    Attributes:
      momentum: weight of the old running statistics.
      epsilon: added to the variance.
      use_scale: whether to learn a scale.
      use_bias: whether to learn a bias.
      scale_init: initial scale; zeros in the last norm of a residual branch starts it as identity.
      axis: of the channels; examples lie along the first axis, or if that is 0 along the last.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    use_scale: bool = True
    use_bias: bool = True
    scale_init: Callable = nn.initializers.ones
    axis: int = -1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., C, ...] -> [..., C, ...], of the same dtype."""
        axis = self.axis % x.ndim
        width, axes = (x.shape[axis],), tuple(d for d in range(x.ndim) if d != axis)
        along = lambda v: jnp.expand_dims(v, axes)  # [C] beside x
        is_live, where = live(self, 'mean'), home(self, 'mean')
        running_mean = self.variable(where, 'mean', jnp.zeros, width, jnp.float32)
        running_var = self.variable(where, 'var', jnp.ones, width, jnp.float32)
        y = x.astype(jnp.float32)
        if self.is_mutable_collection(MOMENTS) and not self.is_initializing():
            within = axes[1:] if axis else axes[:-1]  # all that is averaged but the examples
            by_example = lambda found: found if axis else found.T  # [N, C]
            self.put_variable(MOMENTS, 'mean', by_example(y.mean(within)))
            self.put_variable(MOMENTS, 'var', by_example(y.var(within)))
        if is_live:
            mean, var = y.mean(axes), y.var(axes)
            keep = self.momentum
            running_mean.value = keep * running_mean.value + (1 - keep) * jax.lax.stop_gradient(
                mean
            )
            running_var.value = keep * running_var.value + (1 - keep) * jax.lax.stop_gradient(var)
        else:
            mean, var = running_mean.value, running_var.value
        scale = jax.lax.rsqrt(var + self.epsilon)
        if self.use_scale:
            scale = scale * self.param('scale', self.scale_init, width, jnp.float32)
        y = (y - along(mean)) * along(scale)
        if self.use_bias:
            y = y + along(self.param('bias', nn.initializers.zeros, width, jnp.float32))
        return y.astype(x.dtype)


class Dropout(nn.Module):
    """Zeroes each element with probability `rate` and scales the rest by 1 / (1 - rate), when live.

    Draws from the rng `dropout`. A rate of 0 makes no variable.

    Reference: Srivastava et al., 2014, JMLR 15, section 4 and (for scaling in training) section 10.

    Attributes:
      rate: probability of zero, in [0, 1).
      shared: axes along which one draw is shared.
    """

    rate: float
    shared: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[...] -> [...], of the same dtype."""
        if not 0 <= self.rate < 1:
            raise ValueError(f'a dropout rate lies in [0, 1), got {self.rate}')
        if self.rate == 0:
            return x
        is_live = live(self, 'on')
        self.variable(home(self, 'on'), 'on', jnp.zeros, (), jnp.uint8)
        if not is_live:
            return x
        shared = {axis % x.ndim for axis in self.shared}
        shape = [1 if axis in shared else size for axis, size in enumerate(x.shape)]
        kept = jax.random.bernoulli(self.make_rng('dropout'), 1 - self.rate, shape)
        return jnp.where(kept, x / (1 - self.rate), jnp.zeros_like(x))


class StochasticDepth(nn.Module):
    """Drops a whole residual branch per example with probability `rate`, when live.

    The kept ones are scaled by 1 / (1 - rate), so that evaluation needs no factor (the paper's
    eq. 5 scales there instead). Draws from the rng `dropout`. A rate of 0 makes no variable.

    Reference: Huang et al., 2016, arXiv:1603.09382, eq. 2.

    Attributes:
      rate: probability that a branch is dropped, in [0, 1).
    """

    rate: float

    @nn.compact
    def __call__(self, branch: Array) -> Array:
        """[N, ...] -> [N, ...], of the same dtype."""
        shared = tuple(range(1, branch.ndim))
        return Dropout(self.rate, shared, name='drop')(branch)
