"""What belongs to one task each: a head, and where tasks part before the features, an encoder."""

from collections.abc import Mapping

import flax.linen as nn
from jax import Array

from tljax.nets.pooling import pool


class TaskHeads(nn.Module):
    """One head a task on what the tasks share, or on what each has of it.

    Attributes:
      heads: task -> head.
      branch: a backbone whose layers behind `since` every task has for itself; None: none are.
      since: the endpoint that is shared.
      until: the endpoint that the heads read.
      pooling: of that endpoint.
    """

    heads: Mapping[str, nn.Module]
    branch: nn.Module | None = None
    since: str = 'features'
    until: str = 'features'
    pooling: str = 'mean'

    @nn.compact
    def __call__(self, shared: Array | Mapping[str, Array]) -> tuple[dict[str, Array], Array]:
        """shared: [N, ...], or that of each task -> outputs {task: [N, C]}, features [N, D].

        The features are those of the first task.
        """
        outputs, features = {}, []
        for task, head in self.heads.items():
            own = shared[task] if isinstance(shared, Mapping) else shared
            if self.branch is not None:
                branch = self.branch.clone(parent=self, name=f'{task}_branch')
                own = branch(shared, since=self.since, until=self.until)
            features.append(pool(own, self.pooling))
            outputs[task] = head.clone(parent=self, name=task)(features[-1])
        return outputs, features[0]
