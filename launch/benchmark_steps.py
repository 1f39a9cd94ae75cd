"""The training steps that benchmark.py times, and both sides' loops of them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

POOL, RATE, MOMENTUM = 4, 0.01, 0.9
TWO_DOMAINS = 'adda', 'dan', 'dann'


class Steps(NamedTuple):
    """Training steps of one kind."""

    net: Mapping[str, Any]  # as config.net
    method: str = 'supervised'
    trains: str = 'encoder|head'
    batch: int = 128  # of each domain
    image: tuple[int, int, int] = (28, 28, 1)
    seeds: int = 1  # members of one program, beside loops one after the other
    loop: bool = True  # many steps a compiled call
    steps: int = 1000  # of the schedules
    tasks: int = 0  # of ten classes each; 0: one label, and no tasks
    options: Mapping[str, Any] = {}  # of the method
    draw: str = ''  # episodes or pairs, of `batch` images of `classes` classes
    classes: int = 10


def work(job: Steps) -> int:
    """Pixels of a step."""
    return job.batch * job.seeds * job.image[0] * job.image[1]


def images(job: Steps) -> int:
    """Those of a step, of all domains and seeds."""
    return job.batch * job.seeds * (2 if job.method in TWO_DOMAINS else 1)


def batches(job: Steps) -> dict[str, np.ndarray]:
    """POOL batches of noise in place of images: the speed is the same."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, POOL, job.batch, *job.image), np.uint8)
    labels = rng.integers(0, 10, (POOL, job.batch), np.int32)
    if job.draw:  # as many of each class
        labels = (np.arange(labels.size, dtype=np.int32) % job.classes).reshape(labels.shape)
    tasks = rng.integers(0, 10, (job.tasks, POOL, job.batch), np.int32)
    return {'image': images[0], 'target': images[1], 'label': labels, 'tasks': tasks}


def torch_loop(job: Steps, how):
    from benchmark_torch import loop

    return loop(job, batches(job), RATE, MOMENTUM, how)


def jax_loop(job: Steps, how):
    """The same, as steps of a run."""
    from benchmark_jax import loop

    return loop(job, batches(job), RATE, MOMENTUM, how)


LOOPS = {'jax': jax_loop, 'torch': torch_loop}
LENET, CONV4 = {'name': 'lenet'}, {'name': 'conv4'}
RESNET18 = {'name': 'imagenet_resnet', 'depth': 18}
BALANCERS = {
    'equal': {'balancer': 'equal'},
    'pcgrad': {'balancer': 'pcgrad'},
    'mgda': {'balancer': 'mgda'},
    'mgda_ub': {'balancer': 'mgda', 'at': 'features'},
}
STEPS = {
    'lenet_step': Steps(LENET),
    'lenet_dann_step': Steps(LENET, 'dann'),
    'lenet_dan_step': Steps(LENET, 'dan'),
    'lenet_adda_step': Steps(LENET, 'adda'),
    'cifar_resnet20_step': Steps({'name': 'cifar_resnet', 'depth': 20}, image=(32, 32, 3)),
    'resnet18_last_stage_step': Steps(
        RESNET18, trains='encoder/stage4|head', batch=16, image=(224, 224, 3), loop=False
    ),
    'lenet_dann_5_seeds': Steps(LENET, 'dann', seeds=5),
    'conv4_episode_step': Steps(
        CONV4, 'prototypical', batch=120, draw='episode:20x1x5', classes=40
    ),
    'conv4_pair_step': Steps(CONV4, 'siamese', batch=128, draw='pairs:64', classes=40),
    **{
        f'lenet_{count}_tasks_{name}': Steps(LENET, 'multitask', tasks=count, options=options)
        for count in (2, 8)
        for name, options in BALANCERS.items()
    },
}
