"""Several hosts as one: each runs the same program, on its own devices and its own rows of a batch.

What the hosts decide by has to be the same on all, or they wait for each other for ever: clocks and
signals are agreed on here. The first host alone writes; see `workdir.replaced`.
"""

import importlib.util
import os

import jax
import numpy as np

from tljax.types import PyTree


def start() -> None:
    """Joins the other processes of a run on several hosts, where a launcher has announced them.

    Steps of Slurm (srun) and Cloud TPU are recognised; elsewhere set JAX_COORDINATOR_ADDRESS,
    JAX_NUM_PROCESSES and JAX_PROCESS_ID.
    """
    # A batch script outside srun has the number of tasks, too, but is alone.
    slurm = int(os.environ.get('SLURM_NTASKS', '1')) > 1 and 'SLURM_STEP_NODELIST' in os.environ
    tpu = importlib.util.find_spec('libtpu') and os.environ.get('JAX_PLATFORMS') != 'cpu'
    if 'JAX_COORDINATOR_ADDRESS' in os.environ:
        jax.distributed.initialize(
            os.environ['JAX_COORDINATOR_ADDRESS'],
            int(os.environ['JAX_NUM_PROCESSES']),
            int(os.environ['JAX_PROCESS_ID']),
        )
    elif slurm or tpu:
        try:
            jax.distributed.initialize()
        except ValueError as error:
            # How JAX says that it found no cluster: a TPU of one host, or none at all.
            if slurm or 'coordinator_address' not in str(error):
                raise


def count() -> int:
    """How many there are. Asks for no device where nobody has joined."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def number() -> int:
    """Of this one, from 0."""
    return jax.process_index() if count() > 1 else 0


def leads() -> bool:
    """Whether this one writes and speaks."""
    return number() == 0


def first(value: float) -> float:
    """The first host's number, on all."""
    if count() == 1:
        return value
    return float(_utils().broadcast_one_to_all(np.float32(value)))


def any_of(flag: bool) -> bool:
    """Whether it holds on any host; all have to ask."""
    return flag if count() == 1 else bool(_utils().process_allgather(np.int32(flag)).any())


def meet(where: str) -> None:
    """Waits until all are here."""
    if count() > 1:
        _utils().sync_global_devices(where)


def local(tree: PyTree) -> PyTree:
    """Arrays that lie on the devices of all hosts, whole, in this one's memory."""
    return tree if count() == 1 else _utils().process_allgather(tree, tiled=True)


def _utils():
    from jax.experimental import multihost_utils  # for the few who have several

    return multihost_utils
