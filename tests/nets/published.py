"""Cases that compare our backbones with their references, and what both sides share.

Nothing here needs PyTorch: weights and images come from NumPy's generators, seeded by name, so that
both sides can make them.
"""

import json
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tljax import partition
from tljax.nets.cifar_resnet import CifarResNet
from tljax.nets.googlenet import GoogLeNet, GoogLeNetAux
from tljax.nets.heads import Linear
from tljax.nets.imagenet_resnet import ImageNetResNet
from tljax.nets.inception import InceptionAux, InceptionV3
from tljax.nets.mobilenet import MobileNetV2
from tljax.nets.pretrained import load, mapping
from tljax.nets.pretrained.layouts import layouts
from tljax.nets.vgg import VGG
from tljax.nets.vit import ViT

GOLDEN = Path(__file__).parent / 'golden'
CLASSES = 10
SAMPLES = 40


class Case(NamedTuple):
    """A backbone, the side of its test images, and which of its endpoints other roles read."""

    net: nn.Module
    size: int
    aux: Mapping[str, tuple[str, nn.Module]] = {}
    gradient: bool = False
    layout: int = 0  # which of the family's layouts the reference has


def googlenet(size):
    heads = {'aux1': ('mixed4a', GoogLeNetAux(CLASSES)), 'aux2': ('mixed4d', GoogLeNetAux(CLASSES))}
    return Case(GoogLeNet(), size, heads)


# The smallest images at which padding and pooling still matter; golden files hold their values.
SMALL = {
    'mobilenet_v2': Case(MobileNetV2(0.35), 64),
    'mobilenet_v2_same': Case(MobileNetV2(0.35, 'SAME', 1e-3), 64, layout=1),
    'cifar_resnet20': Case(CifarResNet(20), 16, gradient=True),
    'resnet18': Case(ImageNetResNet(18), 64),
    'resnet50': Case(ImageNetResNet(50), 64),
    'vgg11_bn': Case(VGG(11, norm=True, width=8, dense=48), 64),
    'vgg16': Case(VGG(16, width=8, dense=48), 64),
    'vgg16_timm': Case(VGG(16, width=8, dense=48), 224, layout=1),
    'vit_tiny': Case(ViT('tiny', blocks=2), 32, gradient=True),
    'googlenet': googlenet(64),
    'inception_v3': Case(InceptionV3(), 75),
}
# Whole nets and all sizes: compared live only.
WHOLE = {
    'mobilenet_v2_1.0': Case(MobileNetV2(), 224),
    'mobilenet_v2_1.0_same': Case(MobileNetV2(1.0, 'SAME', 1e-3), 224, layout=1),
    **{f'cifar_resnet{depth}': Case(CifarResNet(depth), 32) for depth in (32, 44, 56)},
    **{f'resnet{depth}': Case(ImageNetResNet(depth), 64) for depth in (34, 101, 152)},
    'resnet50_224': Case(ImageNetResNet(50), 224),
    **{
        f'vgg{depth}{"_bn" * norm}_slim': Case(VGG(depth, norm, width=8, dense=48), 64)
        for depth in (11, 13, 16, 19)
        for norm in (False, True)
    },
    'vgg16_224': Case(VGG(16), 224),
    **{f'vit_{size}_224': Case(ViT(size), 224) for size in ('tiny', 'small', 'base')},
    'googlenet_224': googlenet(224),
    'inception_v3_299': Case(InceptionV3(), 299, {'aux': ('mixed6e', InceptionAux(CLASSES))}),
}


def images(size: int) -> np.ndarray:
    """[2, size, size, 3] float32."""
    return np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Weights by the source's names that keep activations in range."""
    made = {}
    for name, shape in shapes.items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        if name.endswith('running_var') or (len(shape) == 1 and name.endswith('weight')):
            value = rng.uniform(0.5, 1.5, shape)
        elif len(shape) > 1 and name.endswith('weight'):
            value = rng.standard_normal(shape, np.float32) * np.sqrt(1.5 / np.prod(shape[1:]))
        else:
            value = rng.normal(0, 0.1, shape)
        made[name] = value.astype(np.float32)
    return made


def shapes(case: Case) -> tuple[dict, dict]:
    """`(params, mutable)` of all roles, zeros of the right shapes without running anything."""

    def init(key):
        image = jnp.zeros((1, case.size, case.size, 3))
        made = {'encoder': case.net.init(key, image)}
        wanted = ('features', *(endpoint for endpoint, _ in case.aux.values()))
        outputs = case.net.apply(made['encoder'], image, until=wanted)
        made['head'] = Linear(CLASSES).init(key, outputs['features'])
        for role, (endpoint, net) in case.aux.items():
            made[role] = net.init(key, outputs[endpoint])
        return made

    made = jax.eval_shape(init, jax.random.key(0))
    made = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), made)
    params = {role: dict(both).pop('params') for role, both in made.items()}
    rest = {role: {k: v for k, v in both.items() if k != 'params'} for role, both in made.items()}
    return params, rest


def loaded(case: Case, arrays: Mapping[str, np.ndarray], directory: Path) -> tuple[dict, dict]:
    """`(params, mutable)` from arrays in a source's layout, through a file and the public API."""
    from tljax.nets.pretrained import files

    path = directory / 'weights.safetensors'
    files.write(path, arrays)
    take = '|'.join(('encoder', 'head', *case.aux))
    return load(f'file:{path}', case.net, *shapes(case), take=take)


def outputs(case: Case, params, mutable, by_stage: bool = False) -> dict[str, np.ndarray]:
    """All endpoints, and the logits of every head under its role, in one program.

    `by_stage` makes each endpoint a slice that begins at the one before, as a cached one would be.
    """

    @jax.jit
    def run(params, mutable, x):
        variables = {role: {'params': params[role], **mutable[role]} for role in params}
        apply = partial(case.net.apply, variables['encoder'])
        if by_stage:
            found, since = {}, None
            for endpoint in case.net.endpoints:
                found[endpoint] = x = apply(x, since=since, until=endpoint)
                since = endpoint
        else:
            found = apply(x, until=case.net.endpoints)
        found['head'] = Linear(CLASSES).apply(variables['head'], found['features'])
        for role, (endpoint, net) in case.aux.items():
            found[role] = net.apply(variables[role], found[endpoint])
        return found

    return jax.tree.map(np.asarray, run(params, mutable, images(case.size)))


def gradients(case: Case, params, mutable) -> dict[str, np.ndarray]:
    """The gradient of sum(logits^2) / 2, in the source's names and order."""

    @jax.jit
    def gradient(params, mutable, x):
        def loss(params):
            features = case.net.apply({'params': params['encoder'], **mutable['encoder']}, x)
            return (Linear(CLASSES).apply({'params': params['head']}, features) ** 2).sum() / 2

        return jax.grad(loss)(params)

    leaves = partition.flat(gradient(params, mutable, images(case.size)))
    rules = layouts(case.net)[case.layout]
    return {
        mapping.source_name(path, rules): np.asarray(mapping.to_theirs(path, leaf))
        for path, leaf in leaves.items()
    }


def sample(array: np.ndarray) -> np.ndarray:
    """Values at fixed places of an array, few enough to keep."""
    flat = np.ravel(array)
    return flat[np.linspace(0, flat.size - 1, min(flat.size, SAMPLES)).astype(int)]


def summary(gradients: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A few values and the largest one of every gradient, in the order of names."""
    rows = [gradients[name] for name in sorted(gradients)]
    return {
        'gradients': np.stack([np.resize(sample(row), 8) for row in rows]),
        'largest': np.stack([np.abs(row).max() for row in rows]),
    }


def error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference, relative to the largest value."""
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30))


def golden(name: str) -> tuple[dict, dict]:
    """`(shapes of the source's weights, arrays)` of a golden file."""
    with np.load(GOLDEN / f'{name}.npz') as archive:
        arrays = dict(archive)
    return json.loads(str(arrays.pop('shapes'))), arrays
