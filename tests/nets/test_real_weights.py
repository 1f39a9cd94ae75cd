"""Real published weights on real images, through the public API."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.nets.published import Case, shapes
from tljax.data import decode
from tljax.nets import Input
from tljax.nets.cifar_resnet import CifarResNet
from tljax.nets.heads import Linear
from tljax.nets.mobilenet import MobileNetV2
from tljax.nets.pretrained import load


def accuracy(spec, net, classes, images, labels, block=50):
    """Top-1 accuracy in per cent of a source's own backbone and classifier."""
    params, mutable = shapes(Case(net, net.input.size))
    params['head'] = {'kernel': np.zeros((params['head']['kernel'].shape[0], classes))}
    params['head']['bias'] = np.zeros(classes)
    params, mutable = load(spec, net, params, mutable, take='encoder|head')

    @jax.jit
    def predict(images):
        variables = {'params': params['encoder'], **mutable['encoder']}
        features = net.apply(variables, net.input.normalise(images))
        return Linear(classes).apply({'params': params['head']}, features).argmax(-1)

    blocks = [predict(jnp.asarray(images[i : i + block])) for i in range(0, len(images), block)]
    return 100 * np.mean(np.concatenate(blocks) == labels)


@pytest.mark.slow
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_mobilenet_on_imagenet(data_root, dtype):
    folder = data_root / 'imagenet_sample'
    rows = list(csv.DictReader((folder / 'labels.csv').open()))
    pixels = decode.Pixels(224, 3, 'crop:0.875')
    images = np.stack([decode.from_file(str(folder / row['file']), pixels) for row in rows])
    labels = np.array([int(row['class_index']) for row in rows])
    # TensorFlow's weights: its padding, and images in [-1, 1].
    net = MobileNetV2(padding='SAME', dtype=dtype, input=Input(224, 3, (0.5,), (0.5,)))
    spec = f'file:{data_root}/weights/mobilenet_v2_imagenet.safetensors'
    found = accuracy(spec, net, 1000, images, labels)
    print(f'MobileNetV2, {dtype}: {found:.1f} % of {len(labels)}')
    # What PyTorch gives on the same pixels, prediction for prediction.
    assert found == pytest.approx(88.0, abs=0.05 if dtype == 'float32' else 1.5)


@pytest.mark.parametrize(
    'depth, file, expected',
    [
        (20, 'resnet20-12fca82f', 80.4),
        pytest.param(56, 'resnet56-4bfd9763', 82.5, marks=pytest.mark.slow),
    ],
)
def test_cifar_resnets(data_root, depth, file, expected):
    folder, pixels = data_root / 'cifar10_jpg' / 'test', decode.Pixels(32, 3)
    paths = sorted(folder.glob('*/*'))
    classes = sorted({path.parent.name for path in paths})
    images = np.stack([decode.from_file(str(path), pixels) for path in paths])
    labels = np.array([classes.index(path.parent.name) for path in paths])
    spec = f'file:{data_root}/weights/cifar_resnet/{file}.th'
    found = accuracy(spec, CifarResNet(depth), 10, images, labels)
    # The figures are PyTorch's on these files, whose compression costs ten points.
    print(f'CIFAR ResNet-{depth}: {found:.1f} % of {len(labels)}')
    assert found == pytest.approx(expected, abs=0.15)
