"""Initial values of a run: drawn from its seeds, or given by a run or by published weights."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tljax import partition, trunk, workdir
from tljax.checkpoints import Checkpoints
from tljax.methods.networks import encoder
from tljax.nets import pretrained
from tljax.nets.apply import variables
from tljax.train import Members
from tljax.types import Array, Method, PyTree, Spec

Given = tuple[Mapping[str, Array], Mapping[str, Array]]  # path -> [M, ...]: params and mutable


def values(method: Method, spec: Spec, members: Members, config) -> tuple[PyTree, PyTree]:
    """`(params, mutable)` of all members: what config.init gives, and the rest drawn.

    Raises:
      ValueError: as `given`.
    """
    found: Given = ({}, {})
    if config.init['from']:
        shapes = jax.eval_shape(lambda: method.init(jax.random.key(0), spec))
        found = given(shapes, members.table, config, spec)
    return drawn(method, spec, members.seed, found)


def drawn(
    method: Method, spec: Spec, seeds: Sequence[int], given: Given = ({}, {})
) -> tuple[PyTree, PyTree]:
    """`(params, mutable)` with the member axis in front, equal seeds giving equal bits.

    One compiled initialiser runs once per seed rather than vmapped, so that a member of many
    starts from exactly the numbers of a solo run. What is `given` is not drawn.
    """

    @jax.jit
    def init(seed):
        values = method.init(jax.random.key(seed), spec)
        return tuple(partition.split(*both)[1] for both in zip(values, given, strict=True))

    made = {int(seed): init(jnp.uint32(seed)) for seed in set(map(int, seeds))}
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *[made[int(seed)] for seed in seeds])
    return tuple(
        partition.nested(partition.flat(own) | dict(leaves))
        for own, leaves in zip(stacked, given, strict=True)
    )


def trained(directory: Path) -> tuple[dict, dict]:
    """The selected `(params, mutable)` of a run directory, NumPy, member axis in front."""
    checkpoints = Checkpoints(Path(directory) / 'checkpoints')
    flat = checkpoints.restore_model()
    checkpoints.close()
    best = 'best/' if any(name.startswith('best/params/') for name in flat) else ''
    found = (
        {
            name.removeprefix(f'{best}{part}/'): leaf
            for name, leaf in flat.items()
            if name.startswith(f'{best}{part}/')
        }
        for part in ('params', 'mutable')
    )
    frozen = trunk.read(Path(directory))
    rest = trunk.leaves(frozen) if frozen else ({}, {})
    return tuple(partition.nested(own | more) for own, more in zip(found, rest, strict=True))


def identity(config, known: Mapping[str, dict] = {}) -> dict:
    """What a directory belongs to: a config, and those of the runs that it goes by.

    They are, as 'start', the run that it starts from, and, as 'tuning', the one that tells its
    hyper-parameters.

    Args:
      config: of the run.
      known: identities of runs by name; others are read from their directories.
    """
    found = {}
    for key, run in (('start', config.init['from']), ('tuning', config.tuned.by)):
        if pretrained.is_published(run):
            found[key] = {'weights': run}
        elif run in known:
            found[key] = known[run]
        elif run and (Path(run) / 'config.json').exists():
            found[key] = workdir.read_json(Path(run) / 'config.json')
    return config.to_dict() | found


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


def given(of: tuple[PyTree, PyTree], members: Sequence[Mapping], config, spec: Spec) -> Given:
    """What config.init.load names of config.init['from'], with the member axis in front.

    What is the same for all members is not copied. Layers of the encoder behind config.endpoint,
    which this run does not have, are left where they are.

    Args:
      of: the shapes of this run's `(params, mutable)`, of one member.
      members: of the run.
      config: of the run.
      spec: gives the shape of images.

    Raises:
      ValueError: the run, its checkpoint or a parameter is not there, or has another shape; or
        published weights can't be had or do not fit.
    """
    made = jax.eval_shape(
        partial(variables, encoder(config)),
        jax.random.key(0),
        jax.ShapeDtypeStruct((2, *spec.image), jnp.float32),
    )
    whole = tuple({'encoder': part} for part in made)
    ours = tuple(map(partition.flat, of))
    published = pretrained.is_published(config.init['from'])
    found = (_published if published else _of_run)(of, whole, members, config)
    if found[0] and not found[0].keys() & ours[0].keys():
        raise ValueError(
            f'init.from={config.init["from"]}: none of its layers is in this run, which has '
            f'{", ".join(sorted({path.rpartition("/")[0] for path in ours[0]})[:3])} and others'
        )
    return tuple(
        {path: leaf for path, leaf in leaves.items() if path in mine}
        for leaves, mine in zip(found, ours, strict=True)
    )


def _published(of, whole, members: Sequence[Mapping], config) -> Given:
    roles = ({**tree, **role} for tree, role in zip(of, whole, strict=True))
    init = config.init
    found = pretrained.read(init['from'], encoder(config), *roles, take=init.load, drop=init.drop)
    return tuple(
        {path: np.broadcast_to(leaf, (len(members), *leaf.shape)) for path, leaf in leaves.items()}
        for leaves in found
    )


def _of_run(of, whole, members: Sequence[Mapping], config) -> Given:
    run, pattern = Path(config.init['from']), config.init.load
    source = trained(run) if (run / 'checkpoints').is_dir() else None
    if source is None:
        raise ValueError(f'init.from={run}: no run directory with checkpoints there')
    partition.select(source[0], pattern)  # refuses a pattern that names nothing
    rows = counterparts(members, workdir.read_json(run / 'results.json')['members'], str(run))
    found = []
    for trees in zip(source, of, whole, strict=True):
        theirs, mine, behind = map(_leaves, trees)
        # Statistics travel with the parameters they belong to.
        every = {**theirs, **mine}
        named = [p for p in every if partition.matches(partition.module_path(p), pattern)]
        for path in sorted(named):
            there, here = (_shape(theirs.get(path), 1), _shape(mine.get(path), 0))
            if there != here and not (path in behind and path not in mine):
                raise ValueError(
                    f'init.from={run}: {path} is {there} there, and {here} here; use the same net, '
                    'or narrow init.load'
                )
        found.append({path: _rows(theirs[path], rows) for path in named if path in theirs})
    return tuple(found)


def _leaves(tree: PyTree) -> dict[str, Any]:
    """Arrays by path, without empty nodes."""
    return {path: leaf for path, leaf in partition.flat(tree).items() if hasattr(leaf, 'shape')}


def _shape(leaf, drop: int) -> str:
    return 'absent' if leaf is None else str(list(leaf.shape[drop:]))


def _rows(leaf: np.ndarray, rows: Sequence[int]) -> np.ndarray:
    """Rows of a leaf; a view if all are the same one."""
    if len(set(rows)) == 1:
        return np.broadcast_to(leaf[rows[0]], (len(rows), *leaf.shape[1:]))
    return leaf[np.asarray(rows)]
