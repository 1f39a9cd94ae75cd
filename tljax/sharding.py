"""The mesh, and where batches, parameters and replicated values lie on it.

There is one mesh axis, 'data'. A step is a plain `jax.jit` over it: losses and batch statistics see
the global batch, and XLA inserts the communication.
"""

import os

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from tljax.types import PyTree

AXIS = 'data'


def start() -> None:
    """Joins the other processes of a multi-host run, where a launcher has announced them.

    Slurm is recognised; elsewhere set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID.
    """
    several = int(os.environ.get('SLURM_NTASKS', '1')) > 1 and 'SLURM_PROCID' in os.environ
    if 'JAX_COORDINATOR_ADDRESS' in os.environ:
        jax.distributed.initialize(
            os.environ['JAX_COORDINATOR_ADDRESS'],
            int(os.environ['JAX_NUM_PROCESSES']),
            int(os.environ['JAX_PROCESS_ID']),
        )
    elif several:
        jax.distributed.initialize()


def mesh(devices: int = 0) -> Mesh:
    """A mesh over the first `devices` devices; 0 takes all.

    Raises:
      ValueError: there are fewer devices than asked for.
    """
    found = jax.devices()
    if devices > len(found):
        raise ValueError(
            f'devices={devices} asked for, but there are {len(found)} ({found[0].platform}); '
            'on a CPU, JAX_NUM_CPU_DEVICES=8 simulates eight'
        )
    chosen = found[: devices or len(found)]
    return jax.make_mesh((len(chosen),), (AXIS,), axis_types=(AxisType.Auto,), devices=chosen)


def check_batch(batch: int, devices: int, stream: str) -> None:
    """Refuses a batch that does not divide over the devices, naming the nearest that do."""
    if batch % devices:
        low, high = batch // devices * devices, -(-batch // devices) * devices
        near = f'{low} or {high}' if low else f'{high}'
        raise ValueError(
            f'stream {stream!r}: batch {batch} does not divide over {devices} devices; '
            f'the nearest that do: {near}'
        )


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Examples along dimension `axis` split over the devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))


def parameters(mesh: Mesh, tree: PyTree, how: str, smallest: int = 2**14) -> PyTree:
    """A sharding for every leaf of a train state whose dimension 0 is the member axis.

    Args:
      mesh: from `mesh`.
      tree: arrays or shapes.
      how: 'replicated', or 'fsdp': each leaf of at least `smallest` elements a member is split
        along its longest dimension that the devices divide.

    Raises:
      ValueError: unknown `how`.
    """
    if how not in ('replicated', 'fsdp'):
        raise ValueError(f"unknown sharding {how!r}; there are 'replicated' and 'fsdp'")

    def place(leaf):
        shape = np.shape(leaf)[1:]
        fits = [d for d in range(len(shape)) if shape[d] % mesh.size == 0]
        if how == 'replicated' or not fits or np.prod(shape) < smallest:
            return replicated(mesh)
        longest = max(fits, key=lambda d: shape[d])
        return batch(mesh, longest + 1)

    return jax.tree.map(place, tree)
