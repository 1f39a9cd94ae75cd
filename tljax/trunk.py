"""The frozen trunk of a run on cached activations: kept once, beside the checkpoints.

Once the activations at a cut are computed, no step reads the layers before it. They are taken out
of what is trained, saved and stacked over members, and put back where the whole net is wanted.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from tljax import partition, workdir
from tljax.types import PyTree

FILE = 'frozen.npz'


class Trunk(NamedTuple):
    """Layers before a cut; member m has the values of row `index[m]`."""

    endpoint: str  # the cut
    roles: tuple[str, ...]  # 'encoder', and its copies
    params: Mapping[str, np.ndarray]  # path inside the role -> [D, ...]
    mutable: Mapping[str, np.ndarray]
    index: np.ndarray  # [M] int

    def variables(self, row: int) -> PyTree:
        """What `apply` takes, for the members of that row."""
        params = partition.nested({path: leaf[row] for path, leaf in self.params.items()})
        mutable = partition.nested({path: leaf[row] for path, leaf in self.mutable.items()})
        return {'params': params, **mutable}


def split(
    values: tuple[PyTree, PyTree], endpoint: str, inside: tuple[Iterable[str], Iterable[str]]
) -> tuple[tuple[PyTree, PyTree], Trunk]:
    """`(params, mutable)` without their trunk, and the trunk.

    Args:
      values: by role, member axis in front.
      endpoint: the cut.
      inside: paths of the layers before it inside the encoder: of parameters, of statistics.
    """
    flat = tuple(map(partition.flat, values))
    parts = tuple(
        {path: np.asarray(leaves[f'encoder/{path}']) for path in sorted(paths)}
        for leaves, paths in zip(flat, inside, strict=True)
    )
    roles = tuple(copies(flat[0], parts[0]))
    mine = {f'{role}/{path}' for role in roles for part in parts for path in part}
    rest = tuple(partition.split(tree, mine)[1] for tree in values)
    members = len(jax.tree.leaves(values[0])[0])
    first, index = _distinct([*parts[0].values(), *parts[1].values()], members)
    parts = ({path: leaf[first] for path, leaf in part.items()} for part in parts)
    return rest, Trunk(endpoint, roles, *parts, index)


def copies(paths: Iterable[str], inside: Iterable[str]) -> list[str]:
    """The roles that have all these parameters: the encoder, and copies, which begin as it does."""
    known = dict.fromkeys(paths)
    roles, inside = dict.fromkeys(path.partition('/')[0] for path in known), tuple(inside)
    return [role for role in roles if all(f'{role}/{path}' in known for path in inside)]


def _distinct(leaves: list[np.ndarray], members: int) -> tuple[list[int], np.ndarray]:
    """The first member of every kind, and which of the kinds each member is."""
    first, index = [0], []
    for member in range(members):
        same = (
            kind
            for kind, one in enumerate(first)
            if all(one == member or _equal(leaf, one, member) for leaf in leaves)
        )
        kind = next(same, len(first))
        if kind == len(first):
            first.append(member)
        index.append(kind)
    return first, np.asarray(index)


def _equal(leaf: np.ndarray, a: int, b: int) -> bool:
    # A view that repeats one member need not be read.
    return leaf.strides[0] == 0 or np.array_equal(leaf[a], leaf[b])


def write(directory: Path, trunk: Trunk) -> None:
    """Writes a run's trunk, once.

    Raises:
      ValueError: the run has another one already, so that its activations would no longer be of
        the layers that it predicts with.
    """
    if known := read(directory):
        old, new = _arrays(known), _arrays(trunk)
        changed = [
            path for path in sorted({**old, **new}) if not _close(old.get(path), new.get(path))
        ]
        if changed:
            raise ValueError(
                f'workdir {directory}: of the frozen layers {", ".join(changed[:3])} are no longer '
                'those that this run began with; bring back the weights of init.from as they were, '
                'or use another --workdir'
            )
        return
    with workdir.replaced(directory / FILE) as draft, draft.open('wb') as file:
        np.savez(file, endpoint=trunk.endpoint, roles=trunk.roles, **_arrays(trunk))


def _arrays(trunk: Trunk) -> dict[str, np.ndarray]:
    parts = {'params': trunk.params, 'mutable': trunk.mutable}
    named = {f'{part}/{path}': leaf for part, of in parts.items() for path, leaf in of.items()}
    return {'index': trunk.index, **named}


def _close(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    # What is drawn on another kind of device differs in the last bits.
    same_shape = a is not None and b is not None and a.shape == b.shape
    return same_shape and np.allclose(a, b, rtol=1e-4, atol=1e-6)


def read(directory: Path) -> Trunk | None:
    """A run's trunk, if it has one.

    Raises:
      ValueError: the file is damaged.
    """
    path = directory / FILE
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        endpoint, roles, index = (arrays.pop(name) for name in ('endpoint', 'roles', 'index'))
    except Exception as error:  # np.load raises whatever its zip and npy readers raise
        raise ValueError(f'{path} cannot be read ({error}); run the run anew') from error
    parts = (
        {name.partition('/')[2]: x for name, x in arrays.items() if name.startswith(part)}
        for part in ('params/', 'mutable/')
    )
    return Trunk(str(endpoint), tuple(roles.tolist()), *parts, index)


def leaves(trunk: Trunk) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Parameters and statistics by path, member axis in front; views where all are the same."""
    members = len(trunk.index)

    def stacked(leaf: np.ndarray) -> np.ndarray:
        if len(leaf) == 1:
            return np.broadcast_to(leaf[0], (members, *leaf.shape[1:]))
        return leaf[trunk.index]

    return tuple(
        {f'{role}/{path}': stacked(leaf) for role in trunk.roles for path, leaf in part.items()}
        for part in (trunk.params, trunk.mutable)
    )
