"""The JAX side of `benchmark.py`: steps as a run makes them, drawing and normalising included."""

import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from benchmark_steps import TWO_DOMAINS

from tljax import choices, initial, methods, optimizers
from tljax import config as configs
from tljax import features as stored
from tljax.data import episodes
from tljax.data import streams as data
from tljax.data.sources import Source
from tljax.methods.networks import encoder
from tljax.nets.apply import variables
from tljax.prepare import options_of
from tljax.program import Program
from tljax.types import Spec, Task


def ready() -> None:
    """Starts the backend."""
    jax.block_until_ready(jnp.zeros(1))


def matrix_rate(how) -> float:
    """Floating-point operations a second of products of large matrices on one device."""
    side = 1024 if jax.default_backend() == 'cpu' else 8192
    a = jnp.ones((side, side), jnp.bfloat16 if how.bfloat16 else jnp.float32)
    product, spent = jax.jit(jnp.matmul), []
    for _ in range(20):
        start = time.perf_counter()
        jax.block_until_ready(product(a, a))
        spent.append(time.perf_counter() - start)
    return 2 * side**3 / min(spent)


def net_of(net: dict, how) -> dict:
    return {**net, 'dtype': 'bfloat16'} if how.bfloat16 else dict(net)


def loop(job, noise: dict, rate: float, momentum: float, how):
    """A function of a number of steps that trains so long, in compiled calls.

    Args:
      job: a `benchmark_steps.Steps`.
      noise: 'image' and 'target' [P, N, H, W, C] uint8, 'label' [P, N], 'tasks' [T, P, N].
      rate: of SGD.
      momentum: of SGD.
      how: the command's, for its precision.
    """
    config = configs.default()
    config.hparams.update(rate=rate, momentum=momentum, weight_decay=0.0)
    config.update(method=job.method, trains=job.trains, steps=job.steps, loop=job.loop)
    config.net = net_of(job.net, how)
    config.members.seed = tuple(range(job.seeds))
    config.data.streams.target = configs.stream()
    config.data.streams.source.draw = job.draw
    draw = episodes.parse(job.draw) if job.draw else None
    names = tuple(map(str, range(noise['label'].max() + 1)))
    members, streams = choices.members(config), {}
    labels = noise['label'].reshape(-1)
    targets = {f'task{i}': one.reshape(-1) for i, one in enumerate(noise['tasks'])}
    several = {'tasks': dict.fromkeys(targets, Task('classification', names)), 'targets': targets}
    of_method = ('source', 'target') if job.method in TWO_DOMAINS else ('source',)
    for name, key in zip(of_method, ('image', 'target'), strict=False):
        images = noise[key].reshape(-1, *noise[key].shape[2:])
        source = Source('noise', names, labels, images.__getitem__, images.shape[1:], **several)
        order = data.select(source, members.seed.tolist(), [0] * job.seeds)
        batch = noise['label'].shape[1]
        drawn = {'labelled': name == 'source', 'image': images, 'draw': draw}
        streams[name] = data.Stream(name, source, *order, batch, **drawn)
    spec = Spec(source.image, names, tasks=source.tasks)
    rule = partial(optimizers.build, config.optimizer)
    method = methods.METHODS[job.method](config, spec, rule, **job.options)
    values = initial.drawn(method, spec, members.seed)
    # The last phase with steps is the method's own: earlier ones train on the source alone.
    own = [phase for phase in method.phases if phase.steps][-1]
    program = Program(own, streams, members, values, options_of(config))
    state = program.begin(values, 0, None)

    def run(steps: int) -> None:
        nonlocal state
        state = jax.block_until_ready(program.run(state, 0, steps, None))

    return run


def features(net: dict, array: np.ndarray, how):
    """A function that computes the features of images [N, H, W, C] uint8, as `tljax.features`."""
    config = configs.default()
    config.net = net_of(net, how)
    backbone = encoder(config)
    image = jnp.zeros((1, *array.shape[1:]), jnp.float32)
    params, mutable = jax.jit(partial(variables, backbone))(jax.random.key(0), image)
    found = {'params': params, **mutable}
    return lambda: np.asarray(
        stored.encoded(backbone, found, array, ('features',), 'mean')['features']
    )
