"""Soft sharing: what tasks share is learnt, not given by where their layers part.

Each module wraps any backbone and maps images to what each task's own head reads; in the role
'encoder' it is all that tasks may share. Endpoints of the backbone are where tasks meet.
"""

from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from tljax.nets.backbone import Input
from tljax.nets.norm import BatchNorm
from tljax.nets.pooling import pool
from tljax.types import Key


class Sharing(nn.Module):
    """What all kinds have in common.

    Attributes:
      net: the backbone.
      tasks: their names.
    """

    net: nn.Module
    tasks: tuple[str, ...]

    @property
    def input(self) -> Input:
        return self.net.input

    @property
    def endpoints(self) -> tuple[str, ...]:
        return self.net.endpoints

    def copy(self, name: str) -> nn.Module:
        """A net of its own, for the body of a compact method."""
        return self.net.clone(parent=self, name=name)

    def up_to(self, endpoint: str) -> tuple[str, ...]:
        return self.endpoints[: self.endpoints.index(endpoint) + 1]


class CrossStitch(Sharing):
    """A net for each task; behind each endpoint their activations are mixed, channel by channel.

    y_t = sum_s a_ts x_s, with a [T, T] of each channel learnt. Misra et al. 2016, "Cross-stitch
    networks for multi-task learning", arXiv:1604.03539, equation 1. The units begin with `own` for
    the task's own and share the rest out (section 5.1). There, beside nets of a low rate, they
    learn 100 times as fast or more: `optimizer.rates={'encoder/*_stitch': 100.0}`.

    Attributes:
      own: the initial share of a task's own activation.
    """

    own: float = 0.9

    @nn.compact
    def __call__(self, images: Array, until: str = 'features') -> dict[str, Array]:
        """[N, H, W, C] -> {task: [N, ...]}."""
        nets = {task: self.copy(f'{task}_net') for task in self.tasks}
        found, since = dict.fromkeys(self.tasks, images), None
        for name in self.up_to(until):
            found = {t: net(found[t], since=since, until=name) for t, net in nets.items()}
            found, since = self.mixed(name, found), name
        return found

    def mixed(self, endpoint: str, found: Mapping[str, Array]) -> dict[str, Array]:
        """The unit of an endpoint: {task: [N, ..., C]} of the nets -> what the tasks make of it."""
        maps = list(found.values())
        unit = self.param(f'{endpoint}_stitch', self.start, (len(maps),) * 2 + maps[0].shape[-1:])
        # Sums of scaled maps fuse; a product batched by channel would transpose them all.
        weighed = lambda row: sum(a.astype(x.dtype) * x for a, x in zip(row, maps, strict=True))
        return {task: weighed(row) for task, row in zip(found, unit, strict=True)}

    def start(self, key: Key, shape: tuple[int, int, int]) -> Array:
        """[T, T, C], of which the rows sum to 1."""
        del key
        others = (1 - self.own) / max(shape[0] - 1, 1)
        same = jnp.eye(shape[0])[:, :, None]
        return jnp.broadcast_to(self.own * same + others * (1 - same), shape)


class Experts(Sharing):
    """Nets that all tasks have, mixed for each task by a softmax gate on the images.

    f_t(x) = sum_i g_t(x)_i f_i(x), g_t(x) = softmax(W_t x): Ma et al. 2018, "Modeling task
    relationships in multi-task learning with multi-gate mixture-of-experts", KDD, equations 6 to 8,
    with x flattened. The gates begin with equal shares.

    Attributes:
      experts: how many.
    """

    experts: int = 4

    @nn.compact
    def __call__(self, images: Array, until: str = 'features') -> dict[str, Array]:
        """[N, H, W, C] -> {task: [N, ...]}."""
        if self.experts < 1:
            raise ValueError(f'experts is {self.experts}; expected 1 or more')
        nets = [self.copy(f'expert{i}') for i in range(1, self.experts + 1)]
        found = jnp.stack([net(images, until=until) for net in nets])
        pixels = images.reshape(len(images), -1)

        def mixed(task):
            zeros = nn.initializers.zeros
            gate = nn.Dense(self.experts, use_bias=False, kernel_init=zeros, name=f'{task}_gate')
            return jnp.einsum('ne,en...->n...', nn.softmax(gate(pixels)).astype(found.dtype), found)

        return {task: mixed(task) for task in self.tasks}


class Attention(Sharing):
    """One net, of whose endpoints each task keeps what its masks in [0, 1] let through.

    y_j = a_j * p_j, where p_j is endpoint j of the net and a_j the mask of [p_j; f(y_(j-1))]: Liu,
    Johns and Davison 2019, "End-to-end multi-task learning with attention", arXiv:1803.10704,
    equations 1 and 2. A mask sees the one output of a stage that a backbone names, there two; and
    f, there a 3 x 3 convolution, is one of 1 x 1 as the others are, so that it fits vectors and
    tokens too.
    """

    @nn.compact
    def __call__(self, images: Array, until: str = 'features') -> dict[str, Array]:
        """[N, H, W, C] -> {task: [N, ...]}."""
        names = self.up_to(until)
        shared = self.copy('shared')(images, until=names)

        def attended(task):
            own = None
            for name in names:
                mask = _Mask(name=f'{task}_{name}_mask')(shared[name], own)
                own = mask * shared[name]
            return own

        return {task: attended(task) for task in self.tasks}


class _Mask(nn.Module):
    """sigmoid(h(g([shared; f(own)]))), of 1 x 1 convolutions with batch normalisation."""

    @nn.compact
    def __call__(self, shared: Array, own: Array | None = None) -> Array:
        """shared: [N, ..., C], own: [N, ..., D] of the endpoint before -> [N, ..., C]."""

        def layer(name, x):
            x = nn.Dense(shared.shape[-1], use_bias=False, name=name)(x)
            return BatchNorm(name=f'{name}_norm')(x)

        x = shared
        if own is not None:
            carried = _like(nn.relu(layer('carried', own)), shared)
            x = jnp.concatenate([shared, carried], -1)
        x = nn.relu(layer('hidden', x))
        return nn.sigmoid(layer('mask', x)).astype(shared.dtype)


def _like(x: Array, other: Array) -> Array:
    """A map at the positions of another; their mean where that has none."""
    if other.ndim < x.ndim:
        return pool(x, 'mean')
    return jax.image.resize(x, (*other.shape[:-1], x.shape[-1]), 'linear')


SHARINGS: Mapping[str, Callable[..., Sharing]] = {
    'cross_stitch': CrossStitch,
    'mmoe': Experts,
    'mtan': Attention,
}
