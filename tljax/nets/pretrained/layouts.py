"""How published weights name what our backbones name otherwise: one declared map per source.

A rule is `ours: theirs`. `{i}` stands for a word, the same on both sides; `{i-1}` for the number
before it. Paths of the encoder go without their role, those of other roles ('head', 'aux1') with
it. Rules name modules: what a module's `kernel`, `scale`, `mean` and so on become is the same
everywhere. The first layout of a family is the one of `export`.

Names and shapes do not tell strides from dilations: weights of dilated ResNets want a net with an
`output_stride`, and are refused for another where the name of the file tells (`location.DILATED`).
"""

from collections.abc import Callable, Mapping

import flax.linen as nn

from tljax.nets import mobilenet, vgg
from tljax.nets.cifar_resnet import CifarResNet
from tljax.nets.googlenet import GoogLeNet
from tljax.nets.imagenet_resnet import ImageNetResNet
from tljax.nets.inception import InceptionV3
from tljax.nets.mobilenet import MobileNetV2
from tljax.nets.vgg import VGG
from tljax.nets.vit import ViT

Rules = Mapping[str, str]

# Parts of a `ConvNorm` in sources that have a convolution and a norm named bn in one module.
BASIC = {'conv': 'conv', 'norm': 'bn'}


def layouts(net: nn.Module) -> tuple[Rules, ...]:
    """The layouts in which weights of a backbone are published.

    A backbone that has none is read and written under its own names, with dots.
    """
    family = LAYOUTS.get(type(net))
    return family(net) if family else ({},)


def _imagenet_resnet(net: ImageNetResNet) -> tuple[Rules, ...]:
    block, theirs = 'stage{i}/block{j}', 'layer{i}.{j-1}'
    rules = {
        'stem/conv': 'conv1',
        'stem/norm': 'bn1',
        f'{block}/unit{{k}}/conv': f'{theirs}.conv{{k}}',
        f'{block}/unit{{k}}/norm': f'{theirs}.bn{{k}}',
        f'{block}/shortcut/conv': f'{theirs}.downsample.0',
        f'{block}/shortcut/norm': f'{theirs}.downsample.1',
        'head': 'fc',
    }
    return (rules,)  # torchvision's; timm's are the same


def _cifar_resnet(net: CifarResNet) -> tuple[Rules, ...]:
    (rules,) = _imagenet_resnet(net)
    return ({**rules, 'head': 'linear'},)


def _mobilenet(net: MobileNetV2) -> tuple[Rules, ...]:
    theirs = {'stem/conv': 'features.0.0', 'stem/norm': 'features.0.1', 'head': 'classifier.1'}
    timm = {
        **{'stem/conv': 'conv_stem', 'stem/norm': 'bn1', 'head': 'classifier'},
        **{'top/conv': 'conv_head', 'top/norm': 'bn2'},
    }
    index = 0
    for i, (expansion, _, blocks, _) in enumerate(mobilenet.STAGES, start=1):
        units = ('expand', 'depthwise', 'project')[expansion == 1 :]
        convs = ('conv_pw', 'conv_dw', 'conv_pwl') if expansion > 1 else ('conv_dw', 'conv_pw')
        for j in range(1, blocks + 1):
            index += 1
            for k, unit in enumerate(units):
                block, last = f'stage{i}/block{j}/{unit}', unit == 'project'
                place = f'features.{index}.conv.{k}'
                # The last convolution has no activation, and so no sequence of its own.
                theirs[f'{block}/conv'] = place if last else f'{place}.0'
                after = f'features.{index}.conv.{k + 1}'
                theirs[f'{block}/norm'] = after if last else f'{place}.1'
                timm[f'{block}/conv'] = f'blocks.{i - 1}.{j - 1}.{convs[k]}'
                timm[f'{block}/norm'] = f'blocks.{i - 1}.{j - 1}.bn{k + 1}'
    theirs |= {'top/conv': f'features.{index + 1}.0', 'top/norm': f'features.{index + 1}.1'}
    return theirs, timm


def _vgg(net: VGG) -> tuple[Rules, ...]:
    rules, index = {}, 0
    for i, convs in enumerate(vgg.SIZES[net.depth], start=1):
        for j in range(1, convs + 1):
            rules[f'stage{i}/conv{j}/conv'] = f'features.{index}'
            rules[f'stage{i}/conv{j}/norm'] = f'features.{index + 1}'
            index += 3 if net.norm else 2
        index += 1
    theirs = {'fc6': 'classifier.0', 'fc7': 'classifier.3', 'head': 'classifier.6'}
    timm = {'fc6': 'pre_logits.fc1', 'fc7': 'pre_logits.fc2', 'head': 'head.fc'}
    return {**rules, **theirs}, {**rules, **timm}


def _vit(net: ViT) -> tuple[Rules, ...]:
    rules = {
        'embed/patches': 'patch_embed.proj',
        'embed/class_token': 'cls_token',
        'embed/positions': 'pos_embed',
        'block{i}/attention/{layer}': 'blocks.{i-1}.attn.{layer}',
        'block{i}/norm{k}': 'blocks.{i-1}.norm{k}',
        'block{i}/fc{k}': 'blocks.{i-1}.mlp.fc{k}',
        'norm': 'norm',
        'head': 'head',
    }
    return (rules,)


def _googlenet(net: GoogLeNet) -> tuple[Rules, ...]:
    rules = {'head': 'fc', 'aux{i}/fc{k}': 'aux{i}.fc{k}'}
    for ours, theirs in BASIC.items():
        rules |= {
            f'stem/{{unit}}/{ours}': f'{{unit}}.{theirs}',
            f'mixed{{x}}/branch1/{ours}': f'inception{{x}}.branch1.{theirs}',
            f'mixed{{x}}/branch4/{ours}': f'inception{{x}}.branch4.1.{theirs}',
            f'mixed{{x}}/branch{{b}}_{{k}}/{ours}': f'inception{{x}}.branch{{b}}.{{k-1}}.{theirs}',
            f'aux{{i}}/conv/{ours}': f'aux{{i}}.conv.{theirs}',
        }
    return (rules,)


def _inception(net: InceptionV3) -> tuple[Rules, ...]:
    stem = {
        **{'conv1a': 'Conv2d_1a_3x3', 'conv2a': 'Conv2d_2a_3x3', 'conv2b': 'Conv2d_2b_3x3'},
        **{'conv3b': 'Conv2d_3b_1x1', 'conv4a': 'Conv2d_4a_3x3'},
    }
    rules = {'head': 'fc', 'aux/fc': 'AuxLogits.fc'}
    for ours, theirs in BASIC.items():
        rules |= {f'stem/{unit}/{ours}': f'{name}.{theirs}' for unit, name in stem.items()}
        rules |= {
            f'mixed{{x}}/{{branch}}/{ours}': f'Mixed_{{x}}.{{branch}}.{theirs}',
            f'aux/{{unit}}/{ours}': f'AuxLogits.{{unit}}.{theirs}',
        }
    return (rules,)


LAYOUTS: Mapping[type, Callable[..., tuple[Rules, ...]]] = {
    CifarResNet: _cifar_resnet,
    GoogLeNet: _googlenet,
    ImageNetResNet: _imagenet_resnet,
    InceptionV3: _inception,
    MobileNetV2: _mobilenet,
    VGG: _vgg,
    ViT: _vit,
}
