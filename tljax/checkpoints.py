"""Saving, restoring and resuming with Orbax.

A checkpoint is three items: 'model' (parameters, statistics and the selected state), 'training'
(optimizers and tallies) and 'meta' (JSON: step, phase, seconds). Leaves are stored flat under
readable paths, so that a mismatch can be named and a model read without its optimizer.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from tljax.types import PyTree

# What Orbax saves of an item without leaves, which it would refuse.
NOTHING = {'nothing': np.zeros((), np.int8)}
KEEP = 2  # the newest, and one to fall back on should the newest be damaged on disk


def flatten(tree: PyTree) -> dict[str, Any]:
    """Leaves by readable path: {'params/encoder/conv1/kernel': ...}."""

    def name(key) -> str:
        return str(next(getattr(key, a) for a in ('key', 'name', 'idx') if hasattr(key, a)))

    leaves = jax.tree.leaves_with_path(tree)
    return {'/'.join(name(key) for key in path): leaf for path, leaf in leaves}


def unflatten(flat: Mapping[str, Any], like: PyTree) -> PyTree:
    """The inverse of `flatten`, in the structure of `like`."""
    names, structure = list(flatten(like)), jax.tree.structure(like)
    return jax.tree.unflatten(structure, [flat[name] for name in names])


class Checkpoints:
    """The checkpoints of one run directory."""

    def __init__(self, directory: Path):
        policy = preservation_policy.LatestN(KEEP)
        options = ocp.CheckpointManagerOptions(preservation_policy=policy, create=True)
        self.directory = Path(directory).absolute()
        handlers = {
            'model': ocp.StandardCheckpointHandler(),
            'training': ocp.StandardCheckpointHandler(),
            'meta': ocp.JsonCheckpointHandler(),
        }
        self._manager = ocp.CheckpointManager(
            self.directory, options=options, item_handlers=handlers
        )

    def latest(self) -> dict | None:
        """The meta of the newest complete checkpoint: at least 'step' and 'phase'."""
        step = self._manager.latest_step()
        if step is None:
            return None
        return self._read(step, meta=ocp.args.JsonRestore())['meta']

    def save(self, number: int, model: PyTree, training: PyTree, meta: dict) -> None:
        """Saves in the background; `number` must grow from save to save."""
        saved = self._manager.save(
            number,
            args=ocp.args.Composite(
                model=ocp.args.StandardSave(flatten(model)),
                training=ocp.args.StandardSave(flatten(training) or NOTHING),
                meta=ocp.args.JsonSave(meta | {'number': number}),
            ),
        )
        if not saved:
            raise RuntimeError(f'checkpoint {number} exists already in {self.directory}')

    def restore(self, number: int, model: PyTree, training: PyTree) -> tuple[PyTree, PyTree]:
        """Restores onto the shardings of `model` and `training`, trees of ShapeDtypeStruct.

        Raises:
          ValueError: the checkpoint has other paths or shapes; names the first that differ.
        """
        wanted = {'model': flatten(model), 'training': flatten(training) or NOTHING}
        for item, leaves in wanted.items():
            self._check(number, item, leaves)
        args = {item: ocp.args.StandardRestore(leaves) for item, leaves in wanted.items()}
        found = self._read(number, **args)
        return unflatten(found['model'], model), unflatten(found['training'], training)

    def restore_model(self, number: int | None = None) -> dict[str, np.ndarray]:
        """The flat 'model' item as NumPy arrays, of the newest checkpoint by default."""
        number = self._manager.latest_step() if number is None else number
        if number is None:
            raise ValueError(f'no checkpoint in {self.directory}; has this run been trained?')
        shapes = self._metadata(number, 'model')
        like = {name: np.empty(leaf.shape, leaf.dtype) for name, leaf in shapes.items()}
        return self._read(number, model=ocp.args.StandardRestore(like))['model']

    def _read(self, number: int, **args):
        try:
            return self._manager.restore(number, args=ocp.args.Composite(**args))
        except Exception as error:
            raise self._damaged(number, error) from error

    def _metadata(self, number: int, item: str) -> dict:
        try:
            return dict(self._manager.item_metadata(number)[item])
        except Exception as error:
            raise self._damaged(number, error) from error

    def _damaged(self, number: int, error: Exception) -> ValueError:
        folder = self.directory / str(number)
        return ValueError(
            f'checkpoint {folder} cannot be read ({str(error)[:200]}); delete that folder to go on '
            'from the checkpoint before it'
        )

    def _check(self, number: int, item: str, wanted: Mapping[str, Any]) -> None:
        found = {name: tuple(leaf.shape) for name, leaf in self._metadata(number, item).items()}
        shapes = {name: tuple(leaf.shape) for name, leaf in wanted.items()}
        differ = [n for n in {**shapes, **found} if shapes.get(n) != found.get(n)]
        if differ:
            lines = [
                f'  {n}: checkpoint {found.get(n, "absent")}, run {shapes.get(n, "absent")}'
                for n in differ[:5]
            ]
            raise ValueError(
                f'checkpoint {self.directory / str(number)} is of another model; first of '
                f'{len(differ)} differences:\n' + '\n'.join(lines)
            )

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()
