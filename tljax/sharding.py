"""The mesh, and where batches, parameters and replicated values lie on it.

There is one mesh axis, 'data'. A step is a plain `jax.jit` over it: losses and batch statistics see
the global batch, and XLA inserts the communication.
"""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from tljax import hosts
from tljax.types import Array, PyTree

AXIS = 'data'


def mesh(devices: int = 0) -> Mesh:
    """A mesh over the first `devices` devices; 0 takes all.

    Raises:
      ValueError: there are fewer devices than asked for, or a host would have none.
    """
    found = jax.devices()
    if hosts.count() > 1 and devices not in (0, len(found)):
        raise ValueError(
            f'devices={devices} asked for, but {hosts.count()} hosts share all of their '
            f'{len(found)}; leave it at 0'
        )
    if not 0 <= devices <= len(found):
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


def split(mesh: Mesh, x: Array) -> Array:
    """In a compiled program: the examples along dimension 0 over the devices."""
    return x if mesh.size == 1 else jax.lax.with_sharding_constraint(x, batch(mesh))


def put(tree: PyTree, places: PyTree) -> PyTree:
    """Arrays onto shardings: those of one host, alike on all, or of all."""
    if hosts.count() == 1:
        return jax.device_put(tree, places)
    return jax.jit(lambda x: x, out_shardings=places)(tree)


def divisible(mesh: Mesh, size: int) -> int:
    """The least number of examples from `size` on that divides over the devices."""
    return -(-size // mesh.size) * mesh.size


def rows(mesh: Mesh, size: int) -> np.ndarray:
    """Those of a batch of `size` that lie on this host's devices, in order."""
    own = batch(mesh).addressable_devices_indices_map((size,)).values()
    return np.unique(np.concatenate([np.arange(size)[cut] for cut in own]))


def placed(mesh: Mesh, tree: PyTree, size: int, axis: int = 0) -> PyTree:
    """Arrays with this host's `rows` along dimension `axis`, as batches of `size` over all devices.

    The other dimensions are whole on every device.
    """
    if hosts.count() == 1:
        return jax.device_put(tree, batch(mesh, axis))
    own = rows(mesh, size)

    def place(x):
        def part(where):
            low, high, _ = where[axis].indices(size)
            begin = np.searchsorted(own, low)
            return x[(slice(None),) * axis + (slice(begin, begin + high - low),)]

        shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
        return jax.make_array_from_callback(shape, batch(mesh, axis), part)

    return jax.tree.map(place, tree)


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
