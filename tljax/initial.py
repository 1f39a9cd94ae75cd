"""Initial values of a run: drawn from its seeds, then loaded from a run or published weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from tljax import partition, workdir
from tljax.checkpoints import Checkpoints
from tljax.methods.networks import encoder
from tljax.nets import pretrained
from tljax.types import Method, PyTree, Spec


def drawn(method: Method, spec: Spec, seeds: Sequence[int]) -> tuple[PyTree, PyTree]:
    """`(params, mutable)` with the member axis in front, equal seeds giving equal bits.

    One compiled initialiser runs once per seed rather than vmapped, so that a member of many
    starts from exactly the numbers of a solo run.
    """
    init = jax.jit(lambda seed: method.init(jax.random.key(seed), spec))
    made = {int(seed): init(jnp.uint32(seed)) for seed in set(map(int, seeds))}
    return jax.tree.map(lambda *x: jnp.stack(x), *[made[int(seed)] for seed in seeds])


def trained(directory: Path) -> tuple[dict, dict]:
    """The selected `(params, mutable)` of a run directory, NumPy, member axis in front."""
    checkpoints = Checkpoints(Path(directory) / 'checkpoints')
    flat = checkpoints.restore_model()
    checkpoints.close()
    best = 'best/' if any(name.startswith('best/params/') for name in flat) else ''
    return tuple(
        partition.nested(
            {
                name.removeprefix(f'{best}{part}/'): leaf
                for name, leaf in flat.items()
                if name.startswith(f'{best}{part}/')
            }
        )
        for part in ('params', 'mutable')
    )


def counterparts(members: Sequence[Mapping], theirs: Sequence[Mapping], run: str) -> list[int]:
    """For each member the one of another run that it starts from: equal on all shared axes.

    Raises:
      ValueError: none or several fit.
    """
    if len(theirs) == 1:
        return [0] * len(members)
    found = []
    for member in members:
        shared = [axis for axis in member if axis in theirs[0]]
        fits = [i for i, other in enumerate(theirs) if all(other[a] == member[a] for a in shared)]
        if len(fits) != 1:
            raise ValueError(
                f'init.from={run}: {len(fits)} of its members fit member {dict(member)}; they '
                f'differ in {", ".join(theirs[0])}. Give this run the same values on those axes'
            )
        found += fits
    return found


def load(values: tuple[PyTree, PyTree], members: Sequence[Mapping], config) -> tuple:
    """`values` with what config.init.load names taken from config.init['from'].

    Raises:
      ValueError: the run, its checkpoint or a parameter is not there, or has another shape; or
        published weights can't be had or do not fit.
    """
    if pretrained.is_published(config.init['from']):
        return _published(values, config)
    run = Path(config.init['from'])
    source = trained(run) if (run / 'checkpoints').is_dir() else None
    if source is None:
        raise ValueError(f'init.from={run}: no run directory with checkpoints there')
    theirs = workdir.read_json(run / 'results.json')['members']
    rows = np.asarray(counterparts(members, theirs, str(run)))
    params = _taken(values[0], source[0], config.init.load, rows, run, True)
    # Statistics travel with the parameters they belong to.
    return params, _taken(values[1], source[1], config.init.load, rows, run, False)


def _published(values: tuple[PyTree, PyTree], config) -> tuple[PyTree, PyTree]:
    """Published weights, the same for every member."""
    one = jax.tree.map(lambda leaf: leaf[0], values)
    init, flat = config.init, [partition.flat(tree) for tree in values]
    found = pretrained.read(init['from'], encoder(config), *one, take=init.load, drop=init.drop)
    return tuple(
        partition.nested(
            old | {path: jnp.broadcast_to(leaf, old[path].shape) for path, leaf in new.items()}
        )
        for old, new in zip(flat, found, strict=True)
    )


def _taken(ours: PyTree, source: PyTree, pattern: str, rows, run: Path, strict: bool) -> PyTree:
    mine, their = partition.flat(ours), partition.flat(source)
    if strict:
        chosen = partition.select(source, pattern)
    else:
        chosen = {p for p in their if partition.matches(partition.module_path(p), pattern)}
    for path in sorted(chosen):
        leaf = their[path][rows]
        if path not in mine or mine[path].shape != leaf.shape:
            here = 'absent' if path not in mine else f'{mine[path].shape[1:]}'
            raise ValueError(
                f'init.from={run}: {path} has shape {leaf.shape[1:]} there, but here it is {here}; '
                'use the same net, or narrow init.load'
            )
        mine[path] = jnp.asarray(leaf)
    return partition.nested(mine)
