"""Tiny data, nets, games and runs that the tests of the core share."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from tljax import loop, partition, sharding, train
from tljax.checkpoints import Checkpoints
from tljax.data import sources
from tljax.data import streams as data
from tljax.losses.classification import accuracy, cross_entropy
from tljax.nets.apply import apply, variables
from tljax.nets.backbone import run
from tljax.nets.norm import BatchNorm, Dropout
from tljax.prepare import prepare
from tljax.program import Options
from tljax.train import Members
from tljax.types import Method, Phase, Player, Spec

SPEC = Spec((2, 2, 1), ('a', 'b', 'c'))


def source(count: int = 30, classes: int = 3, shape=(2, 2, 1), seed: int = 0) -> sources.Source:
    """Noise whose brightness tells the class; classes take turns."""
    random = np.random.RandomState(seed)
    labels = (np.arange(count) % classes).astype(np.int32)
    images = random.randint(0, 60, (count, *shape)) + 60 * labels.reshape(-1, 1, 1, 1)
    names = tuple('abcdefgh'[:classes])
    return sources.Source('toy', names, labels, images.astype(np.uint8).__getitem__, shape)


def stream(name: str = 'source', of=None, batch: int = 8, members: int = 1, fed=False, **options):
    """All of a source for every member: resident, or decoded by Grain if `fed`."""
    of = of or source()
    order, count = data.select(of, [0] * members, [0] * members)
    made = data.Stream(name, of, order, count, batch, **options)
    return made if fed else data.resident(made, 1024)


def members(*seeds: int, **hp) -> Members:
    """One member a seed; a hyper-parameter is one number for all or one for each."""
    seeds = seeds or (0,)
    full = {k: np.broadcast_to(np.float32(v), (len(seeds),)) for k, v in hp.items()}
    table = tuple({'seed': seed} for seed in seeds)
    return Members(table, np.asarray(seeds, np.uint32), full)


class Block(nn.Module):
    """Dense, norm, tanh, dropout. Smooth and without a bias, so that rounding stays rounding."""

    width: int
    affine: bool = True
    rate: float = 0.0
    remat: bool = False

    @nn.compact
    def __call__(self, x):
        norm = nn.remat(BatchNorm) if self.remat else BatchNorm
        x = nn.Dense(self.width, use_bias=False, name='dense')(x)
        x = norm(use_scale=self.affine, use_bias=self.affine, name='norm')(x)
        return Dropout(self.rate, name='drop')(jnp.tanh(x))


class Encoder(nn.Module):
    """Two blocks, 'low' and 'high', the second with a norm that has no parameters."""

    width: int = 5
    rate: float = 0.0
    remat: bool = False

    @nn.compact
    def __call__(self, x, since=None, until='high'):
        low = Block(self.width, True, self.rate, self.remat, name='low')
        high = Block(self.width, False, self.rate, self.remat, name='high')
        stages = {'low': lambda x: low(x.reshape(x.shape[0], -1)), 'high': high}
        return run(stages, x, since, until)


def classifier(trains='encoder|head', optimizer=None, steps: int = 6, net=None, **options):
    """A supervised method on the stream 'source' with norms and, if asked for, dropout.

    `optimizer` is hp -> optax transformation; `options` are of the phase.
    """
    net, head = net or Encoder(), nn.Dense(3)
    optimizer = optimizer or (lambda hp: optax.sgd(0.3))

    def forward(params, mutable, images, key=None):
        images = data.unit(images)
        features, mutable = apply(net, 'encoder', params, mutable, images, key=key)
        logits, mutable = apply(head, 'head', params, mutable, features, key=key)
        return {'logits': logits, 'features': features}, mutable

    def loss(params, mutable, batch, hp, key):
        images, label = batch['source']['image'], batch['source']['label']
        out, mutable = forward(params, mutable, images, key)
        metrics = {'accuracy': accuracy(out['logits'], label)}
        return cross_entropy(out['logits'], label), (metrics, mutable)

    def init(key, spec):
        keys = jax.random.split(key)
        made = [variables(net, keys[0], jnp.zeros((2, *spec.image)))]
        made += [variables(head, keys[1], jnp.zeros((2, net.width)))]
        return tuple({'encoder': made[0][i], 'head': made[1][i]} for i in (0, 1))

    player = Player('model', trains, loss, optimizer)
    predict = lambda *args: forward(*args)[0]
    return Method(init, (Phase('train', steps, (player,), **options),), predict)


def scalars(**values):
    """One role a number: {'a': {'w': ...}}."""
    return {name: {'w': jnp.float32(value)} for name, value in values.items()}


def simple(fn: Callable) -> Callable:
    """A loss of the parameters alone, as a `LossFn`."""
    return lambda params, mutable, batch, hp, key: (fn(params), ({}, mutable))


def game(phases, **values) -> Method:
    """A method on scalars, which predicts nothing."""
    return Method(lambda key, spec: (scalars(**values), {}), tuple(phases), None)


def play(phase: Phase, params, mutable=None, steps: int = 1, batch=None, hp=None, seed: int = 0):
    """Steps of one member without the loop; `batch` is fixed, or a function of the step.

    Returns:
      `(params, mutable, optimizers, metrics of the last step)`.
    """
    params, mutable, optimizers = train.enter_phase(
        phase, params, mutable or {}, None, hp or {}, jax.random.key(seed)
    )
    step = jax.jit(train.make_step(phase, params, mutable))
    metrics = {}
    for number in range(steps):
        now = batch(number) if callable(batch) else batch
        params, mutable, optimizers, metrics = step(
            params, mutable, optimizers, now, hp or {}, jnp.uint32(seed), jnp.int32(number)
        )
    return params, mutable, optimizers, metrics


def stacked(values, count: int = 1):
    """The member axis in front, all members equal."""
    return jax.tree.map(lambda x: jnp.stack([x] * count), values)


def drawn(method: Method, of: Members):
    """Initial values of all members, each as `init` makes them on its own."""
    made = [method.init(jax.random.key(seed), SPEC) for seed in of.seed]
    return jax.tree.map(lambda *x: jnp.stack(x), *made)


class Ran(NamedTuple):
    """What a run left behind: its result and what is in its newest checkpoint."""

    fitted: loop.Fitted | None
    lines: list[dict]
    saved: dict[str, np.ndarray]  # everything in the newest checkpoint, flat
    steps: list[int]  # where compiled calls ended


def probe(params, mutable, phase) -> dict:
    """A stand-in for evaluation: one number a member that depends on every parameter."""
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(params)]
    total = sum((leaf.reshape(len(leaf), -1) ** 2).sum(1) for leaf in leaves)
    return {'probe': {'size': total.tolist()}}


def fit(
    directory: Path,
    method: Method,
    streams=None,
    of: Members | None = None,
    stop_at: int | None = None,
    values=None,
    evaluate: Callable = probe,
    score: Callable | None = None,
    **options,
) -> Ran:
    """`loop.fit` in a directory, stopped by request at the end of the call that reaches a step."""
    of = of or members()
    streams = {'source': stream(members=len(of.table))} if streams is None else streams
    lines, steps = [], []
    checkpoints = Checkpoints(Path(directory))
    calls = loop.Calls(
        evaluate=evaluate,
        record=lambda line: lines.append(json.loads(json.dumps(line))),
        progress=lambda step, info: steps.append(step),
        stopping=lambda: stop_at is not None and steps[-1] >= stop_at,
        score=score,
    )
    options = Options(**{'mesh': sharding.mesh(1), **options})
    values = values or drawn(method, of)
    fitted = None
    try:
        fitted = loop.fit(method, streams, of, values, checkpoints, options, calls)
    except loop.Stopped:
        assert stop_at is not None
    finally:
        checkpoints.close()
    return Ran(fitted, lines, saved(directory), steps)


def by_phase(directory: Path, ready) -> dict:
    """Phase -> the parameters at its last evaluation, of a prepared run that is fitted here."""
    seen = {}

    def watch(params, mutable, phase):
        seen[phase.name] = jax.tree.map(np.asarray, params)
        return probe(params, mutable, phase)

    run = (ready.method, ready.streams, ready.members)
    fit(directory, *run, values=ready.values, evaluate=watch)
    return seen


def fit_config(directory: Path, config):
    """What a config prepares and what comes of it, evaluated by `probe` only."""
    ready = prepare(config)
    found = fit(
        directory,
        ready.method,
        ready.streams,
        ready.members,
        values=ready.values,
        **ready.options._asdict(),
    )
    return ready, found.fitted


def saved(directory: Path) -> dict[str, np.ndarray]:
    """All leaves of the newest checkpoint."""
    import orbax.checkpoint as ocp

    newest = max(
        (p for p in Path(directory).iterdir() if p.name.isdigit()), key=lambda p: int(p.name)
    )
    handler = ocp.StandardCheckpointHandler()
    reader = ocp.Checkpointer(handler)
    return {
        f'{item}/{name}': np.asarray(leaf)
        for item in ('model', 'training')
        for name, leaf in reader.restore(newest / item).items()
    }


def same(a: Mapping, b: Mapping) -> None:
    """Equal trees, bit for bit."""
    a, b = partition.flat(dict(a)), partition.flat(dict(b))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def close(a, b, relative: float) -> None:
    """Equal trees but for `relative` times the largest entry of each leaf."""
    a, b = partition.flat(a), partition.flat(b)
    assert a.keys() == b.keys()
    for name in a:
        scale = max(np.abs(b[name]).max(), 1e-8)
        np.testing.assert_allclose(a[name], b[name], rtol=0, atol=relative * scale, err_msg=name)


one_of = partial(jax.tree.map, lambda x: x[0])
