"""Networks: backbones with named endpoints, heads, and the tables by which configs name them."""

import dataclasses
from collections.abc import Callable, Mapping

import flax.linen as nn

from tljax.nets.backbone import Input
from tljax.nets.cifar_resnet import CifarResNet
from tljax.nets.conv4 import Conv4, KochNet
from tljax.nets.googlenet import GoogLeNet
from tljax.nets.heads import Cosine, Linear, MLPHead
from tljax.nets.identity import Identity
from tljax.nets.imagenet_resnet import ImageNetResNet
from tljax.nets.inception import InceptionV3
from tljax.nets.lenet import LeNet
from tljax.nets.mlp import MLP
from tljax.nets.mobilenet import MobileNetV2
from tljax.nets.resnet import ResNet
from tljax.nets.sharing import SHARINGS
from tljax.nets.vgg import VGG
from tljax.nets.vit import ViT
from tljax.types import unknown

BACKBONES: Mapping[str, Callable[..., nn.Module]] = {
    'cifar_resnet': CifarResNet,
    'conv4': Conv4,
    'googlenet': GoogLeNet,
    'identity': Identity,
    'imagenet_resnet': ImageNetResNet,
    'inception_v3': InceptionV3,
    'koch': KochNet,
    'lenet': LeNet,
    'mlp': MLP,
    'mobilenet_v2': MobileNetV2,
    'resnet': ResNet,
    'vgg': VGG,
    'vit': ViT,
}

HEADS: Mapping[str, Callable[..., nn.Module]] = {
    'cosine': Cosine,
    'linear': Linear,
    'mlp': MLPHead,
}


def build_backbone(name: str, **options) -> nn.Module:
    """A backbone by its name in `BACKBONES`.

    Example: `build_backbone('lenet', widths=(8, 16), kernel=3, padding='SAME')`.

    Raises:
      ValueError: no such backbone, or it has no such option.
    """
    return _build('backbone', BACKBONES, name, options)


def build_head(name: str, classes: int, **options) -> nn.Module:
    """A head for so many classes by its name in `HEADS`.

    Raises:
      ValueError: no such head, or it has no such option.
    """
    return _build('head', HEADS, name, options, classes=classes)


def build_sharing(name: str, net: nn.Module, tasks: tuple[str, ...], **options) -> nn.Module:
    """What tasks share softly of a backbone, by its name in `SHARINGS`.

    Raises:
      ValueError: no such sharing, or it has no such option.
    """
    return _build('sharing', SHARINGS, name, options, net=net, tasks=tasks)


def _build(kind, table, name, options, **given):
    if name not in table:
        raise unknown(kind, name, table)
    known = {field.name for field in dataclasses.fields(table[name])}
    known = sorted(known - {'parent', 'name', *given})
    for option in options:
        if option not in known:
            raise unknown(f'option of {kind} {name!r}', option, known)
    return table[name](**given, **options)


__all__ = [
    'BACKBONES',
    'HEADS',
    'SHARINGS',
    'Input',
    'build_backbone',
    'build_head',
    'build_sharing',
]
