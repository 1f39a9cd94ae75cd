"""One phase of a run, compiled: how to begin it, go on with it, and what its state looks like."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tljax import hosts, sharding, train
from tljax.data import streams as data
from tljax.train import Members, TrainState
from tljax.types import Phase, keep


class Options(NamedTuple):
    """When and where; nothing here changes what is computed, but for rounding."""

    mesh: jax.sharding.Mesh
    evaluate_every: int = 0  # steps; 0: at the end of each phase
    save_every: int = 0  # steps between checkpoints beside those at evaluations
    parameters: str = 'replicated'  # or 'fsdp'
    lifting: str = 'vmap'  # or 'map'
    loop: bool = True  # many steps a compiled call, where all streams are resident
    block: int = 500  # examples a block in evaluation and hooks
    reader: Mapping[str, Any] = {}  # for data.reader


class Program:
    """A phase bound to streams, members and a mesh.

    Attributes:
      like: the state's shapes, types and shardings, member axis in front.
      selected: shardings of a state that is kept because it is the best so far.
    """

    def __init__(
        self,
        phase: Phase,
        streams: Mapping[str, data.Stream],
        members: Members,
        values: tuple,
        options: Options,
        begin: int = 0,
    ):
        self.phase, self.streams, self.members, self.options = phase, streams, members, options
        self.count, self.first = len(members.table), begin
        self.resident = all(stream.resident for stream in streams.values())
        self.loop = options.loop and self.resident
        self.lift = partial(train.lift, members=self.count, how=options.lifting)
        place = partial(jax.device_put, device=sharding.replicated(options.mesh))
        self.hooks: dict = {}  # compiled, by name
        self.fixed = place({'seed': members.seed, 'hp': dict(members.hp)})
        self.mine, self.shared = place(data.split_members(streams))
        self._compile(*_shapes(values, 1))

    def _compile(self, params, mutable):
        split = partial(sharding.split, self.options.mesh)
        draw = data.make_draw(self.streams, train.key_at, split)
        step = train.make_step(self.phase, params, mutable, self.first)
        like = self._like(step, draw, params, mutable)
        self.shardings = sharding.parameters(self.options.mesh, like, self.options.parameters)
        places = {name: getattr(self.shardings, name) for name in ('params', 'mutable')}
        everywhere = sharding.replicated(self.options.mesh)
        self.selected = {'score': everywhere, 'step': everywhere, **places}
        self.like = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), like, self.shardings
        )
        call = self.lift(train.make_call(train.tallied(step), draw, self.loop))
        self.call = jax.jit(
            lambda state, mine, shared: call({'state': state, **mine}, shared),
            donate_argnums=0,
            out_shardings=self.shardings,
        )

    def _like(self, step, draw, params, mutable) -> TrainState:
        """The state's shapes, found without computing anything; also sets `metrics`."""
        hp = _shapes(self.fixed['hp'], 1)
        phase = self.phase._replace(enter=keep, carry=False)
        optimizers = jax.eval_shape(
            lambda *values: train.enter_phase(phase, *values[:2], None, values[2], None)[2],
            params,
            mutable,
            hp,
        )
        mine = _shapes(self.mine, 1)
        for name, stream in self.streams.items():
            if not stream.resident:
                rows = jax.ShapeDtypeStruct((stream.batch,), jnp.int32)
                image = jax.ShapeDtypeStruct(
                    (stream.batch, *stream.source.image), stream.source.dtype
                )
                label = jax.tree.map(
                    lambda x, n=stream.batch: jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype),
                    stream.source.label,
                )
                mine[name] = {'image': image, 'label': label, 'index': rows}
        seed, number = (jax.ShapeDtypeStruct((), d) for d in (jnp.uint32, jnp.int32))
        batch = jax.eval_shape(draw, mine, _shapes(self.shared), seed, number)
        found = jax.eval_shape(step, params, mutable, optimizers, batch, hp, seed, number)
        self.metrics = tuple(found[3])
        state = TrainState(params, mutable, optimizers, *train.cleared(self.phase, self.metrics))
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((self.count, *x.shape), x.dtype), state)

    def begin(self, values, step: int, last) -> TrainState:
        """The state before the first step: `enter`, the optimizers' start, placement."""
        return self.cleared(*self._hooked('enter', values, step, last))

    def refresh(self, state: TrainState, step: int) -> TrainState:
        """The state after the phase's `refresh`."""
        params, mutable = self._hooked('refresh', (state.params, state.mutable), step, None)
        return sharding.put(state._replace(params=params, mutable=mutable), self.shardings)

    def cleared(self, params, mutable, optimizers) -> TrainState:
        """A state with empty tallies, on the mesh."""
        empty = train.cleared(self.phase, self.metrics)
        empty = jax.tree.map(lambda x: jnp.broadcast_to(x, (self.count, *x.shape)), empty)
        return sharding.put(TrainState(params, mutable, optimizers, *empty), self.shardings)

    def feed(self, start: int, stop: int) -> Iterator | None:
        """Batches of the fed streams for these steps, if there are fed streams."""
        if self.resident or start == stop:
            return None
        own = {n: sharding.rows(self.options.mesh, s.batch) for n, s in self.streams.items()}
        return data.feed(self.streams, self.members.seed, start, stop, own, **self.options.reader)

    def run(self, state: TrainState, start: int, count: int, feed: Iterator | None) -> TrainState:
        """`count` steps from `start`: in one compiled call, or one call a step."""
        mine, shared = {'streams': self.mine, **self.fixed}, {'streams': self.shared}
        if self.loop:
            return self.call(state, mine, shared | {'start': start, 'count': count})
        for number in range(start, start + count):
            if feed is not None:
                mine['streams'] = self.mine | {
                    name: sharding.placed(self.options.mesh, one, self.streams[name].batch, 1)
                    for name, one in next(feed).items()
                }
            state = self.call(state, mine, shared | {'start': number})
        return state

    def _hooked(self, which: str, values, step: int, last):
        """The phase's hook 'enter', with the optimizers' start, or 'refresh', for all members."""
        mesh = self.options.mesh

        def one(mine, shared, over=None):
            over = over or data.traced_over(
                self.streams, mine['streams'], shared['streams'], self.options.block, mesh
            )
            key = train.key_at(mine['seed'], f'{self.phase.name}/hook', shared['step'])
            args = (self.phase, *mine['values'], over, mine['hp'], key)
            if which == 'enter':
                return train.enter_phase(*args, mine['last'])
            return train.hooked(which, *args)

        mine = {'values': values, 'last': last, 'streams': self.mine, **self.fixed}
        shared = {'streams': self.shared, 'step': step}
        if self.resident or getattr(self.phase, which) is keep:
            if which not in self.hooks:
                places = self.shardings.params, self.shardings.mutable, self.shardings.optimizers
                places = places if which == 'enter' else places[:2]
                self.hooks[which] = jax.jit(self.lift(one), out_shardings=places)
            return self.hooks[which](mine, shared)
        # Over fed streams a hook runs member by member, and its `over` block by block here; on
        # several hosts on each of them.
        mine = hosts.local(mine)
        found = [
            one(jax.tree.map(lambda x: x[m], mine), shared, partial(self._host_over, m))
            for m in range(self.count)
        ]
        return jax.tree.map(lambda *x: np.stack(x), *found)

    def _host_over(self, member: int, name: str, fn):
        stream, own = self.streams[name], slice(member, member + 1)
        stream = stream._replace(order=stream.order[own], count=stream.count[own])
        if stream.cached:
            stream = stream._replace(image=stream.image[own])
        lift = partial(train.lift, members=1)
        mesh = None if hosts.count() > 1 else self.options.mesh
        run = data.over_blocks(lambda _, batch: fn(batch), stream, lift, self.options.block, mesh)
        return jax.tree.map(lambda x: x[0], run(np.zeros(1)))


def _shapes(tree, drop: int = 0):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[drop:], x.dtype), tree)
