"""`fit`: phases one after the other, with evaluation, selection, checkpoints and clean stops.

It reads like the recipe it is. What a step does is in `tljax.train`, what is drawn in
`tljax.data.streams`; here is only when things happen.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tljax import sharding, train
from tljax.checkpoints import Checkpoints
from tljax.data import streams as data
from tljax.train import Members, TrainState
from tljax.types import Method, Phase, PyTree, keep

CALL_SECONDS = 2.0  # a compiled call stays near this, so that a signal is soon heard


class Options(NamedTuple):
    """When and how; nothing here changes what is computed, but for `lifting` and devices."""

    evaluate_every: int
    save_every: int
    mesh: jax.sharding.Mesh
    parameters: str = 'replicated'
    lifting: str = 'vmap'
    loop: bool = True
    block: int = 500  # examples a block in evaluation and hooks
    reader: Mapping[str, Any] = {}


class Calls(NamedTuple):
    """What `fit` asks back: scores of values, a line to write, progress to show, and a stop."""

    evaluate: Callable[[PyTree, PyTree, Phase], dict]
    score: Callable[[dict], np.ndarray] | None  # [M], higher is better; None: the last step
    record: Callable[[dict], None]
    progress: Callable[[int, dict], None]
    stopping: Callable[[], bool]


class Stopped(Exception):
    """A clean stop was asked for; everything is saved."""


class Fitted(NamedTuple):
    """The selected values, by member, with the step they are from."""

    params: PyTree
    mutable: PyTree
    step: np.ndarray
    seconds: float


class Program:
    """One phase, compiled: how to begin it, continue it, and what its state looks like."""

    def __init__(self, phase: Phase, streams, members: Members, values, options: Options):
        self.phase, self.streams, self.members, self.options = phase, streams, members, options
        self.count = len(members.table)
        self.lift = partial(train.lift, members=self.count, how=options.lifting)
        mine, shared = data.split_members(streams)
        place = partial(jax.device_put, device=sharding.replicated(options.mesh))
        self.fixed = {'seed': place(members.seed), 'hp': place(dict(members.hp))}
        self.mine, self.shared = place(mine), place(shared)
        self.resident = all(stream.resident for stream in streams.values())
        self.seeds = members.seed
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), values)
        self._compile(*one)

    def _compile(self, params, mutable):
        constrain = partial(_constrain, self.options.mesh)
        draw = data.make_draw(self.streams, train.key_at, constrain)
        step = train.make_step(self.phase, params, mutable)
        hp = {name: jax.ShapeDtypeStruct((), jnp.float32) for name in self.members.hp}
        like = jax.eval_shape(self._first, params, mutable, hp)
        number = jax.ShapeDtypeStruct((), jnp.int32)
        seed = jax.ShapeDtypeStruct((), jnp.uint32)
        batch = jax.eval_shape(draw, *self._stream_shapes(), seed, number)
        metrics = jax.eval_shape(step, params, mutable, like, batch, hp, seed, number)[3]
        self.metrics = tuple(metrics)
        state = TrainState(params, mutable, like, *train.cleared(self.phase, self.metrics))
        lifted = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((self.count, *x.shape), x.dtype), state
        )
        self.shardings = sharding.parameters(self.options.mesh, lifted, self.options.parameters)
        self.like = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), lifted, self.shardings
        )
        call = self.lift(
            train.make_call(train.tallied(step), draw, self.options.loop and self.resident)
        )
        self.call = jax.jit(
            lambda state, mine, shared: call({'state': state, **mine}, shared),
            donate_argnums=0,
            out_shardings=self.shardings,
        )

    def _first(self, params, mutable, hp):
        over = lambda *_: None
        phase = self.phase._replace(enter=keep)
        return train.enter_phase(phase, params, mutable, over, hp, None)[2]

    def _stream_shapes(self):
        mine = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), self.mine)
        for name, stream in self.streams.items():
            if not stream.resident:
                rows = jax.ShapeDtypeStruct((stream.batch,), jnp.int32)
                image = jax.ShapeDtypeStruct((stream.batch, *stream.source.image), jnp.uint8)
                mine[name] = {'image': image, 'label': rows, 'index': rows}
        return mine, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self.shared)

    def hook(self, hook, values, step: int, last=None, entering: bool = False):
        """Runs `enter` (with the optimizers' start) or `refresh` for all members."""

        def one(mine, shared, over=None):
            key = train.key_at(mine['seed'], f'{self.phase.name}/hook', shared['step'])
            over = over or data.traced_over(
                self.streams, mine['streams'], shared['streams'], self.options.block
            )
            args = (*mine['values'], over, mine['hp'], key)
            if entering:
                return train.enter_phase(self.phase, *args, mine['last'])
            return hook(*args)

        mine = {'values': values, 'last': last, 'streams': self.mine, **self.fixed}
        shared = {'streams': self.shared, 'step': step}
        if self.resident or hook is keep:
            return jax.jit(self.lift(one))(mine, shared)
        return self._host_hook(one, mine, shared)

    def _host_hook(self, one, mine, shared):
        """Hooks over fed streams run member by member, their `over` on the host."""
        out = []
        for m in range(self.count):

            def over(name, fn, m=m):
                stream = self.streams[name]
                own = stream._replace(order=stream.order[m : m + 1], count=stream.count[m : m + 1])
                solo = partial(train.lift, members=1)
                run = data.over_blocks(lambda _, b: fn(b), own, solo, self.options.block)
                return jax.tree.map(lambda x: x[0], run(np.zeros(1)))

            out.append(one(jax.tree.map(lambda x: x[m], mine), shared, over))
        return jax.tree.map(lambda *x: jnp.stack(x), *out)

    def begin(self, values, step: int, last) -> TrainState:
        """The state before the first step: hook, optimizers, placement on the mesh."""
        params, mutable, optimizers = self.hook(self.phase.enter, values, step, last, True)
        return self.clear(params, mutable, optimizers)

    def clear(self, params, mutable, optimizers) -> TrainState:
        tally, bad = train.cleared(self.phase, self.metrics)
        widen = lambda x: jnp.broadcast_to(x, (self.count, *x.shape))
        state = TrainState(params, mutable, optimizers, *jax.tree.map(widen, (tally, bad)))
        return jax.device_put(state, self.shardings)

    def run(self, state: TrainState, start: int, count: int, feed) -> TrainState:
        """`count` steps from `start`: one compiled call, or one a step."""
        shared = {'streams': self.shared}
        if self.options.loop and self.resident:
            mine = {'streams': self.mine, **self.fixed}
            return self.call(state, mine, shared | {'start': start, 'count': count})
        for number in range(start, start + count):
            streams = self.mine
            if not self.resident:
                fed = jax.device_put(next(feed), sharding.batch(self.options.mesh, 1))
                streams = {**self.mine, **fed}
            mine = {'streams': streams, **self.fixed}
            state = self.call(state, mine, shared | {'start': number})
        return state


def _constrain(mesh, x):
    if mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, sharding.batch(mesh))


def _next_stop(step: int, end: int, *every: int) -> int:
    return min([end, *(step - step % e + e for e in every if e)])


def fit(
    method: Method,
    streams: Mapping[str, data.Stream],
    members: Members,
    values: tuple[PyTree, PyTree],
    checkpoints: Checkpoints,
    options: Options,
    calls: Calls,
) -> Fitted:
    """Trains all members through all phases and returns the selected values.

    Goes on from the newest checkpoint, if there is one: a resumed run is bit for bit the
    uninterrupted one.

    Args:
      method: phases and players.
      streams: what batches are drawn from.
      members: seeds and hyper-parameters.
      values: `(params, mutable)` with the member axis in front, before the first phase.
      checkpoints: of this run's directory.
      options: cadence, mesh, lifting.
      calls: evaluation, selection, recording, progress, stop.

    Raises:
      FloatingPointError: a loss is not finite; nothing after the last checkpoint is saved.
      Stopped: `calls.stopping()` became true; the state is saved.
    """
    ends, meta = train.boundaries(method), checkpoints.latest()
    best = _no_best(values, len(members.table)) if calls.score else {}
    step, spent, clock, last = 0, 0.0, time.perf_counter(), None
    number = meta['number'] if meta else 0
    if meta:
        step, spent = meta['step'], meta['seconds']

    def save(index, state):
        nonlocal number
        number += 1
        _check_values(state, step)
        seconds = spent + time.perf_counter() - clock
        model = {'params': state.params, 'mutable': state.mutable, 'best': best}
        training = {'optimizers': state.optimizers, 'tally': state.tally, 'bad': state.bad}
        since = {'step': step, 'phase': index, 'seconds': seconds, 'recorded': recorded}
        checkpoints.save(number, model, training, since)

    recorded = meta['recorded'] if meta else 0
    for index, phase in enumerate(method.phases):
        if meta and index < meta['phase']:
            continue
        program = Program(phase, streams, members, values, options)
        if meta:
            state, best = _restore(checkpoints, meta, program, best)
            fresh, meta = False, None
        else:
            state, fresh = program.begin(values, step, last), True
        begin, end = ends[index] - phase.steps, ends[index]
        feed = None if program.resident else data.feed(
            streams, members.seed, step, end, **options.reader
        )
        pace, since = 1, recorded
        while step < end or fresh:
            if phase.every and step > begin and (step - begin) % phase.every == 0:
                new = program.hook(phase.refresh, (state.params, state.mutable), step)
                state = state._replace(params=new[0], mutable=new[1])
            stop = _next_stop(step, end, options.evaluate_every, options.save_every, phase.every)
            count = min(stop - step, pace)
            before = time.perf_counter()
            state = program.run(state, step, count, feed) if count else state
            step, fresh = step + count, False
            train.check_finite(state, members)  # waits for the call
            pace = _paced(pace, count, time.perf_counter() - before)
            calls.progress(step, {'phase': phase.name})
            due = step == end or (options.evaluate_every and step % options.evaluate_every == 0)
            if due:
                scores = calls.evaluate(state.params, state.mutable, phase)
                since = max(step - recorded, 1)
                tally = {n: (np.asarray(v) / since).tolist() for n, v in state.tally.items()}
                seconds = spent + time.perf_counter() - clock
                calls.record(
                    {'step': step, 'phase': phase.name, 'seconds': round(seconds, 3)}
                    | {'train': tally} | scores
                )
                state = program.clear(state.params, state.mutable, state.optimizers)
                recorded = step
                if calls.score:
                    best = _better(best, state, jnp.asarray(calls.score(scores)), step)
            if due or (options.save_every and step % options.save_every == 0):
                save(index, state)
            if calls.stopping() and not (step == end and index == len(ends) - 1):
                if not due:
                    save(index, state)
                raise Stopped(f'stopped at step {step} of {ends[-1]}; everything is saved')
        values, last = (state.params, state.mutable), state.optimizers
    seconds = spent + time.perf_counter() - clock
    if calls.score:
        return Fitted(best['params'], best['mutable'], np.asarray(best['step']), seconds)
    return Fitted(*values, np.full(len(members.table), step), seconds)


def _paced(pace: int, count: int, seconds: float) -> int:
    """Steps for the next call, so that it takes about CALL_SECONDS."""
    if count < pace:
        return pace
    return pace * 2 if seconds < CALL_SECONDS / 2 else max(1, pace // 2) if (
        seconds > CALL_SECONDS * 2
    ) else pace


def _no_best(values, members: int) -> dict:
    worst = jnp.full(members, -jnp.inf)
    params, mutable = values
    return {'score': worst, 'step': jnp.zeros(members, jnp.int32), 'params': params,
            'mutable': mutable}


@jax.jit
def _better(best: dict, state: TrainState, score, step) -> dict:
    """The better of two states, member by member."""
    new = {'score': score, 'step': jnp.full_like(best['step'], step), 'params': state.params,
           'mutable': state.mutable}
    wins = score > best['score']

    def choose(a, b):
        return jnp.where(wins.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, best)


def _restore(checkpoints: Checkpoints, meta: dict, program: Program, best: dict):
    like = program.like
    shape = lambda tree: jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=sharding.replicated(program.options.mesh)
        ),
        tree,
    )
    model, training = checkpoints.restore(
        meta['number'],
        {'params': like.params, 'mutable': like.mutable, 'best': shape(best)},
        {'optimizers': like.optimizers, 'tally': like.tally, 'bad': like.bad},
    )
    state = TrainState(model['params'], model['mutable'], **training)
    return state, model['best']


@jax.jit
def _all_finite(tree):
    leaves = [jnp.isfinite(x).all() for x in jax.tree.leaves(tree) if x.dtype.kind == 'f']
    return jnp.stack(leaves).all() if leaves else jnp.array(True)


def _check_values(state: TrainState, step: int) -> None:
    if not _all_finite(state.params):
        raise FloatingPointError(
            f'a parameter is not finite at step {step}; the last checkpoint before it is kept. '
            'Lower hparams.rate, or set optimizer.clip'
        )
