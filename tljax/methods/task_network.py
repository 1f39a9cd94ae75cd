"""The network of several tasks, bound to its roles, and the batch that all of them see."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from tljax import nets
from tljax.data.streams import unit
from tljax.losses.multitask import LOSSES
from tljax.methods.networks import check_readout, encoder
from tljax.nets.apply import apply, variables
from tljax.nets.multitask import TaskHeads
from tljax.types import Array, Batch, Key, Mutable, Params, PyTree, Spec, Task

SHARED = 'encoder'  # the role of what all tasks share; 'head' is the tasks' own


class TaskNetwork(NamedTuple):
    """The shared encoder up to `branch`, and the heads of the tasks."""

    encoder: nn.Module
    heads: TaskHeads
    tasks: Mapping[str, Task]
    since: str | None
    branch: str

    @classmethod
    def build(
        cls,
        config,
        spec: Spec,
        branch: str = '',
        sharing: str = 'hard',
        options: Mapping[str, Any] | None = None,
    ) -> 'TaskNetwork':
        if not spec.tasks:
            raise ValueError(
                "method 'multitask' needs several label columns: name them as tasks= of the "
                "streams, such as data.streams.source.tasks=('label', 'parity')"
            )
        net, branch = encoder(config), branch or config.endpoint
        check_branch(net, config, branch)
        head = dict(config.head)
        name = head.pop('name', '')
        own = {
            t: nets.build_head(name, len(task.classes), **head) for t, task in spec.tasks.items()
        }
        parts = None if branch == config.endpoint else net
        heads = TaskHeads(own, parts, branch, config.endpoint, config.pool)
        if sharing != 'hard':
            net = nets.build_sharing(sharing, net, tuple(spec.tasks), **options)
        return cls(net, heads, dict(spec.tasks), spec.since, branch)

    def init(self, key: Key, spec: Spec) -> tuple[dict, dict]:
        keys = jax.random.split(key)
        images = jnp.zeros((2, *spec.image), jnp.float32)
        made = {SHARED: variables(self.encoder, keys[0], images, until=self.branch)}
        own = {'params': made[SHARED][0], **made[SHARED][1]}
        shared = self.encoder.apply(own, images, until=self.branch)
        made['head'] = variables(self.heads, keys[1], shared)
        return tuple({role: both[i] for role, both in made.items()} for i in (0, 1))

    def shared(
        self, params: Params, mutable: Mutable, inputs: Array, key: Key | None = None
    ) -> tuple[PyTree, Mutable]:
        """What all heads read, [N, ...]; softly shared, {task: what its head reads}."""
        cut = {'until': self.branch}
        if self.since is None:
            inputs = self.encoder.input.normalise(inputs)
        else:
            cut |= {'since': self.since}
        return apply(self.encoder, SHARED, params, mutable, inputs, key=key, **cut)

    def predict(self, params: Params, mutable: Mutable, inputs: Array) -> dict:
        """'tasks' {task: [N, C]}, 'logits' of the first task and 'features' [N, D]."""
        shared, _ = self.shared(params, mutable, inputs)
        (outputs, features), _ = apply(self.heads, 'head', params, mutable, shared)
        outputs = {name: task.told(outputs[name]) for name, task in self.tasks.items()}
        return {'tasks': outputs, 'logits': outputs[next(iter(outputs))], 'features': features}

    def losses(
        self,
        outputs: Mapping[str, Array],
        label: Mapping[str, Array],
        smoothing: float | Array = 0.0,
    ) -> Array:
        """[T], in the order of the tasks, of what the heads return.

        Args:
          outputs: task -> [N, C].
          label: task -> as its kind has them.
          smoothing: of the labels of classifications.
        """

        def loss(name, task):
            options = {'smoothing': smoothing} if task.kind == 'classification' else {}
            return LOSSES[task.kind](outputs[name], task.standard(label[name]), **options)

        return jnp.stack([loss(name, task) for name, task in self.tasks.items()])


def check_branch(net: nn.Module, config, branch: str) -> None:
    """Raises ValueError for an endpoint that there is not, or that comes after the one read."""
    branch = branch or config.endpoint
    check_readout(net, (config.endpoint, branch), config.pool)
    if net.endpoints.index(branch) > net.endpoints.index(config.endpoint):
        raise ValueError(f'options.branch: {branch!r} comes after {config.endpoint!r}')


def joined(batch: Batch, tasks: Mapping[str, Task]) -> tuple[Array, dict[str, Array]]:
    """Images and labels of all labelled streams; a task that a stream lacks is absent there.

    So each task may have a stream of its own.
    """
    streams = [one for _, one in sorted(batch.items()) if 'label' in one]

    def column(stream: Mapping, name: str) -> Array:
        if name in stream['label']:
            return stream['label'][name]
        count, task = len(stream['image']), tasks[name]
        if task.kind == 'classification':
            return jnp.full(count, -1, jnp.int32)
        shape = (count, len(task.classes))
        return jnp.full(shape, -1) if task.kind == 'multilabel' else jnp.full(shape, jnp.nan)

    # As uint8 and float images do not mix: a stream may be augmented and another one not.
    images = jnp.concatenate([unit(one['image']) for one in streams])
    return images, {n: jnp.concatenate([column(one, n) for one in streams]) for n in tasks}
