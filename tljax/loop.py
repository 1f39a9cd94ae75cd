"""`fit`: phases one after the other, with evaluation, selection, checkpoints and clean stops.

What a step does is in `tljax.train`, how a phase is compiled in `tljax.program`, what is drawn in
`tljax.data.streams`; here is when things happen.
"""

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tljax import hosts, sharding, train
from tljax.checkpoints import Checkpoints
from tljax.data import streams as data
from tljax.program import Options, Program
from tljax.signals import stop
from tljax.train import Members, TrainState
from tljax.types import Method, Phase, PyTree

CALL_SECONDS = 2.0  # a compiled call stays near this, so that a signal is soon heard


class Calls(NamedTuple):
    """What `fit` asks back while it works."""

    evaluate: Callable[[PyTree, PyTree, Phase], dict]  # {stream: {metric: one number a member}}
    record: Callable[[dict], None]  # a line of metrics
    progress: Callable[[int, dict], None] = lambda step, info: None
    stopping: Callable[[], bool] = lambda: False
    # [M], higher is better; None: last step. Asked in the last phase only: what earlier ones leave
    # is not yet what the method predicts with.
    score: Callable[[dict], np.ndarray] | None = None


class Stopped(Exception):
    """A clean stop was asked for; everything is saved."""


@contextmanager
def terminated() -> Iterator[Callable[[], bool]]:
    """`came()`: whether SIGTERM came since; the signal does nothing else until the block ends.

    If it came in a command that `exit_on_sigterm`, that ends now, and no other is heard: it would
    cut off, or be told beside, what the command says of the first.

    It may come to one of several hosts, and stops all: each has to ask as often as the others.
    Whoever opens the block has to ask once more when its work is done, for `fit` no longer stops
    once all steps are made.
    """
    signals: list = []
    previous = signal.signal(signal.SIGTERM, lambda *_: signals.append(True))
    try:
        yield lambda: hosts.any_of(bool(signals))
    finally:
        ending = signals and previous is stop
        signal.signal(signal.SIGTERM, signal.SIG_IGN if ending else previous)


class Fitted(NamedTuple):
    """The selected values, by member, with the step they are from."""

    params: PyTree
    mutable: PyTree
    step: np.ndarray
    seconds: float
    earlier: float  # of these seconds, those of processes before this one


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
      Stopped: `calls.stopping()` became true before the end; the state is saved.
    """
    run = _Run(method, members, checkpoints, options, calls, values)
    last = None
    for index, phase in enumerate(method.phases):
        if index < run.phase:
            continue
        first = run.ends[index] - phase.steps
        program = Program(phase, streams, members, values, options, first)
        run.best = sharding.put(run.best, program.selected if run.best else {})
        if run.resuming:
            state = run.restore(program)
        else:
            run.phase = index
            state = program.begin(values, run.step, last)
            if not phase.steps:
                state = run.settle(program, state)
                if not run.over and calls.stopping():
                    raise run.stopped()
        state = run.train(program, state)
        values, last = (state.params, state.mutable), state.optimizers
    return run.fitted(values)


class _Run:
    """Where a fit stands: step, phase, selected state and clock."""

    def __init__(self, method, members, checkpoints, options, calls, values):
        self.ends, self.members, self.calls = train.boundaries(method), members, calls
        self.checkpoints, self.options = checkpoints, options
        meta = checkpoints.latest()
        self.resuming = meta is not None
        meta = meta or dict.fromkeys(('step', 'phase', 'number', 'recorded', 'lines', 'seconds'), 0)
        self.step, self.phase, self.number = meta['step'], meta['phase'], meta['number']
        self.recorded, self.lines, self.spent = meta['recorded'], meta['lines'], meta['seconds']
        self.started, self.pace = time.perf_counter(), 1
        self.best = _worst(values, len(members.table)) if calls.score else {}

    @property
    def seconds(self) -> float:
        return self.spent + time.perf_counter() - self.started

    def train(self, program: Program, state: TrainState) -> TrainState:
        """Steps until the end of the current phase."""
        phase, end, options = program.phase, self.ends[self.phase], self.options
        begin, feed = end - phase.steps, program.feed(self.step, end)
        while self.step < end:
            if self.step > begin and _on(self.step - begin, phase.every):
                state = program.refresh(state, self.step)
            stop = min(
                end,
                begin + _after(self.step - begin, phase.every),
                _after(self.step, options.evaluate_every),
                _after(self.step, options.save_every),
            )
            count, before = min(stop - self.step, self.pace), time.perf_counter()
            state = program.run(state, self.step, count, feed)
            train.check_finite(state, self.members, phase)  # waits for the call
            self._set_pace(count, hosts.first(time.perf_counter() - before))
            self.step += count
            self.calls.progress(self.step, {'phase': phase.name})
            stopping = self.calls.stopping()
            if self.step == end or _on(self.step, options.evaluate_every):
                state = self.settle(program, state)
            elif stopping or _on(self.step, options.save_every):
                self.check(state)
                self.save(state)
            if stopping and not self.over:
                raise self.stopped()
        return state

    @property
    def over(self) -> bool:
        """Whether there are neither steps nor phases left."""
        return self.step == self.ends[-1] and self.phase == len(self.ends) - 1

    def stopped(self) -> Stopped:
        return Stopped(f'stopped at step {self.step} of {self.ends[-1]}; everything is saved')

    def settle(self, program: Program, state: TrainState) -> TrainState:
        """Evaluates, writes a line of metrics, keeps what is best, and saves."""
        self.check(state)
        scores = self.calls.evaluate(state.params, state.mutable, program.phase)
        steps = max(self.step - self.recorded, 1)
        tally = {name: (np.asarray(v) / steps).tolist() for name, v in state.tally.items()}
        line = {'step': self.step, 'phase': program.phase.name, 'seconds': round(self.seconds, 3)}
        self.calls.record(line | {'train': tally} | scores)
        self.recorded, self.lines = self.step, self.lines + 1
        if self.calls.score and self.phase == len(self.ends) - 1:
            better = _better(self.best, state, self.calls.score(scores), self.step)
            self.best = sharding.put(better, program.selected)
        state = program.cleared(state.params, state.mutable, state.optimizers)
        self.save(state)
        return state

    def check(self, state: TrainState) -> None:
        """Refuses a parameter that is not finite, before it is evaluated or saved."""
        if not _all_finite(state.params):
            raise FloatingPointError(
                f'a parameter is not finite at step {self.step}; the last checkpoint before it is '
                'kept. Lower hparams.rate, or set optimizer.clip'
            )

    def save(self, state: TrainState) -> None:
        """A checkpoint, written in the background."""
        self.number += 1
        model, training = _items(state, self.best)
        meta = {name: getattr(self, name) for name in ('step', 'phase', 'recorded', 'lines')}
        self.checkpoints.save(self.number, model, training, meta | {'seconds': self.seconds})

    def restore(self, program: Program) -> TrainState:
        """The state of the newest checkpoint, placed as the program wants it."""
        self.resuming = False
        best = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), self.best
        )
        model, training = self.checkpoints.restore(self.number, *_items(program.like, best))
        self.best = model.pop('best')
        return TrainState(**model, **training)

    def fitted(self, values: tuple[PyTree, PyTree]) -> Fitted:
        if self.calls.score:
            best = self.best
            values, step = (best['params'], best['mutable']), np.asarray(best['step'])
        else:
            step = np.full(len(self.members.table), self.step)
        return Fitted(*values, step, self.seconds, self.spent)

    def _set_pace(self, count: int, seconds: float) -> None:
        """Steps of the next call, so that it takes about CALL_SECONDS."""
        if count == self.pace and seconds < CALL_SECONDS / 2:
            self.pace *= 2
        elif seconds > CALL_SECONDS * 2:
            self.pace = max(1, self.pace // 2)


def _on(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _after(step: int, every: int) -> float:
    """The next multiple of `every` after a step."""
    return step - step % every + every if every else float('inf')


def _items(state: TrainState, best: dict) -> tuple[dict, dict]:
    """A state as the items 'model' and 'training' of a checkpoint."""
    model = {'params': state.params, 'mutable': state.mutable, 'best': best}
    training = {'optimizers': state.optimizers, 'tally': state.tally, 'bad': state.bad}
    return model, training


def _selected(score, step, params, mutable) -> dict:
    return {'score': score, 'step': step, 'params': params, 'mutable': mutable}


def _worst(values: tuple[PyTree, PyTree], members: int) -> dict:
    return _selected(jnp.full(members, -jnp.inf), jnp.zeros(members, jnp.int32), *values)


@jax.jit
def _better(best: dict, state: TrainState, score: jax.Array, step: int) -> dict:
    """The better of two states, member by member."""
    new = _selected(score, jnp.full_like(best['step'], step), state.params, state.mutable)
    wins = score > best['score']

    def choose(a, b):
        return jnp.where(wins.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, best)


@jax.jit
def _all_finite(tree: PyTree) -> jax.Array:
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(x).all() for x in floats] or [jnp.array(True)]).all()
