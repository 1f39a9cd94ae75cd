"""The only loop: phases of players, compiled many steps at a time, over one or many members.

A run trains one or more *members*: copies of one program that differ in seed, few-shot subset or
traced hyper-parameters. Every leaf of a `TrainState` has the member axis in front; steps, losses
and hooks are written for one member and lifted over that axis.
"""

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tljax import partition, sampling
from tljax.types import Hparams, Key, Method, Metrics, Mutable, Over, Params, Phase, PyTree


class TrainState(NamedTuple):
    """All that changes while a phase runs; `tally` and `bad` are cleared at every evaluation."""

    params: Params
    mutable: Mutable
    optimizers: Mapping[str, PyTree]  # by player
    tally: Mapping[str, jax.Array]  # sums of the metrics of the steps since the last evaluation
    bad: Mapping[str, jax.Array]  # by player: the first step with a non-finite loss, or -1


class Members(NamedTuple):
    """What the members of a run differ in: `table` says it in words, the arrays to the program."""

    table: tuple[Mapping[str, float], ...]
    seed: np.ndarray  # [M] uint32
    hp: Mapping[str, np.ndarray]  # name -> [M] float32


def lift(fn: Callable, members: int, how: str = 'vmap') -> Callable:
    """`fn(mine, shared)`, written for one member, over the leading axis of `mine`.

    `how` is 'vmap' (one batched program) or 'map' (one member after the other). A single member
    runs unbatched either way.
    """
    if members == 1:

        def solo(mine, shared):
            out = fn(jax.tree.map(lambda x: x[0], mine), shared)
            return jax.tree.map(lambda x: x[None], out)

        return solo
    if how == 'map':
        return lambda mine, shared: jax.lax.map(lambda m: fn(m, shared), mine)
    if how == 'vmap':
        return jax.vmap(fn, in_axes=(0, None))
    raise ValueError(f"unknown lifting {how!r}; there are 'vmap' and 'map'")


def key_at(seed, purpose: str, step) -> Key:
    """The random key of (seed, purpose, step): equal in a member of many and in a solo run."""
    key = jax.random.fold_in(jax.random.key(seed), sampling.stream_id(purpose))
    return jax.random.fold_in(key, step)


def owners(phase: Phase, params: Params) -> dict[str, frozenset[str]]:
    """Player name -> the parameter paths it moves.

    Raises:
      ValueError: a pattern matches nothing, players of a simultaneous phase overlap, or different
        players share a name.
    """
    for player in phase.players:
        if any(p.name == player.name and p != player for p in phase.players):
            raise ValueError(
                f'phase {phase.name!r} has two players named {player.name!r}; names keep their '
                'optimizers apart'
            )
    owned = {p.name: partition.select(params, p.trains) for p in phase.players}
    if phase.simultaneous:
        seen: dict[str, str] = {}
        for player in phase.players:
            for path in sorted(owned[player.name]):
                if path in seen:
                    raise ValueError(
                        f'phase {phase.name!r} is simultaneous, but players {seen[path]!r} and '
                        f'{player.name!r} both train {path!r}'
                    )
                seen[path] = player.name
    return owned


def enter_phase(
    phase: Phase, params: Params, mutable: Mutable, over: Over, hp: Hparams, key: Key, last=None
) -> tuple[Params, Mutable, dict[str, PyTree]]:
    """Values before the first step of a phase, for one member: hook first, then the optimizers.

    `last` is the optimizer states of the phase before, which a phase that `carry`s goes on from
    wherever path and shape are equal.
    """
    params, mutable = hooked('enter', phase, params, mutable, over, hp, key)
    fresh = {}
    for player in phase.players:
        own, _ = partition.split(params, partition.select(params, player.trains))
        fresh[player.name] = player.optimizer(hp).init(own)
    return params, mutable, _carried(fresh, last) if phase.carry and last else fresh


def hooked(
    which: str, phase: Phase, params: Params, mutable: Mutable, over: Over, hp: Hparams, key: Key
) -> tuple[Params, Mutable]:
    """The values after the phase's hook 'enter' or 'refresh', for one member.

    Raises:
      ValueError: the hook changed more than values.
    """

    def layout(params, mutable):
        leaves = jax.tree.leaves_with_path({'params': params, 'mutable': mutable})
        name = partial(jax.tree_util.keystr, simple=True, separator='/')
        return {name(path): jax.typeof(x).str_short() for path, x in leaves}

    found = getattr(phase, which)(params, mutable, over, hp, key)
    before, after = layout(params, mutable), layout(*found)
    for path in {**before, **after}:
        was, now = before.get(path, 'absent'), after.get(path, 'absent')
        if was != now:
            raise ValueError(
                f'phase {phase.name!r}: `{which}` changed {path} from {was} to {now}; hooks change '
                'values, and `init` makes all that any phase needs'
            )
    return found


def _carried(fresh: PyTree, last: PyTree) -> PyTree:
    old = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(last)}

    def choose(path, leaf):
        was = old.get(jax.tree_util.keystr(path))
        return was if was is not None and was.shape == leaf.shape else leaf

    return jax.tree_util.tree_map_with_path(choose, fresh)


def make_step(phase: Phase, params: Params, mutable: Mutable, begin: int = 0) -> Callable:
    """One step of a phase, whose first step has the number `begin`, for one member.

    Returns:
      `step(params, mutable, optimizers, batch, hp, seed, step) -> (params, mutable, optimizers,
      metrics)`, with metrics 'player/loss' and 'player/...'.
    """
    owned = owners(phase, params)
    norms = {name: partition.trained_modules(params, mutable, own) for name, own in owned.items()}
    live = frozenset().union(*norms.values())

    def step(params, mutable, optimizers, batch, hp, seed, number):
        optimizers, metrics, moves = dict(optimizers), {}, []
        hp = {**hp, 'progress': (number - begin) / max(phase.steps, 1)}
        for i, player in enumerate(phase.players):
            move = f'{phase.name}/{player.name}/{i}'
            key = key_at(seed, move, number)
            own, rest = partition.split(params, owned[player.name])
            lent = partition.lend(mutable, live)

            def loss(own):
                return player.loss(partition.merge(own, rest), lent, batch, hp, key)

            apart = key_at(seed, f'{move}/gradient', number)  # from what the loss draws
            (value, (found, lent)), gradient = player.gradient(loss, own, apart)
            mutable = partition.give_back(lent, mutable, norms[player.name])
            value = jnp.sum(value)
            metrics |= {f'{player.name}/{k}': v for k, v in {'loss': value, **found}.items()}
            rule = optax.with_extra_args_support(player.optimizer(hp))
            updates, optimizers[player.name] = rule.update(
                gradient, optimizers[player.name], own, value=value, metrics=metrics
            )
            moved = optax.apply_updates(own, updates)
            if phase.simultaneous:
                moves.append(moved)
            else:
                params = partition.merge(moved, params)
        for moved in moves:
            params = partition.merge(moved, params)
        return params, mutable, optimizers, metrics

    return step


def tallied(step: Callable) -> Callable:
    """Adds bookkeeping to a step: sums of the metrics and the first non-finite loss."""

    def run(state: TrainState, batch, hp, seed, number) -> TrainState:
        params, mutable, optimizers, metrics = step(
            state.params, state.mutable, state.optimizers, batch, hp, seed, number
        )
        tally = {name: total + metrics[name] for name, total in state.tally.items()}
        bad = {
            name: jnp.where((at < 0) & ~jnp.isfinite(metrics[f'{name}/loss']), number, at)
            for name, at in state.bad.items()
        }
        return TrainState(params, mutable, optimizers, tally, bad)

    return run


def cleared(phase: Phase, metrics: Metrics) -> tuple[dict, dict]:
    """`tally` and `bad` of one member before the first step."""
    zero, none = jnp.zeros((), jnp.float32), jnp.full((), -1, jnp.int32)
    return dict.fromkeys(metrics, zero), {player.name: none for player in phase.players}


def make_call(step: Callable, draw: Callable, loop: bool) -> Callable:
    """`call(mine, shared)`: n steps of one member in one compiled program.

    `mine` holds this member's 'state', 'seed', 'hp' and 'streams', `shared` the 'streams' that all
    members draw from, the number of the first step, 'start', and how many, 'count'. The count is
    traced, so that evaluations and checkpoints may fall anywhere. Without `loop` a call is one
    step, in straight line: for data fed from the host, and for XLA on CPU, which runs its own
    convolutions slowly inside a loop.
    """

    def one(number, state, mine, shared):
        batch = draw(mine['streams'], shared['streams'], mine['seed'], number)
        return step(state, batch, mine['hp'], mine['seed'], number)

    def call(mine, shared):
        if not loop:
            return one(shared['start'], mine['state'], mine, shared)
        return jax.lax.fori_loop(
            shared['start'],
            shared['start'] + shared['count'],
            lambda number, state: one(number, state, mine, shared),
            mine['state'],
        )

    return call


def check_finite(state: TrainState, members: Members, phase: Phase) -> None:
    """Stops a run whose loss is not a number.

    Raises:
      FloatingPointError: names the first step, the first player in it and the member.
    """
    names = list(dict.fromkeys(player.name for player in phase.players))
    if not names:
        return
    steps = np.stack([np.asarray(state.bad[name]) for name in names])
    steps = np.where(steps < 0, np.iinfo(np.int32).max, steps)
    player, member = np.unravel_index(np.argmin(steps), steps.shape)
    # Players in turn: the later ones of a step are lost because of the first.
    if steps[player, member] < np.iinfo(np.int32).max:
        count, who = len(members.table), dict(members.table[member])
        of = f' in member {member} of {count} ({who})' if count > 1 else ''
        raise FloatingPointError(
            f'the loss of player {names[player]!r} is not finite at step {steps[player, member]}'
            f'{of}; the last checkpoint before it is kept. Lower hparams.rate, or set '
            'optimizer.clip'
        )


def boundaries(method: Method) -> list[int]:
    """The step at which each phase ends."""
    return list(itertools.accumulate(phase.steps for phase in method.phases))
