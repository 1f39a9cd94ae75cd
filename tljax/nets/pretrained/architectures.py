"""What the name of published weights tells of their net."""

import re
from typing import Any

from tljax.nets.pretrained.location import declared_input

# Names as timm and, in lower case, torchvision have them.
NAMES = (
    (r'resnet(?P<depth>18|34|50|101|152)', {'name': 'imagenet_resnet'}),
    (r'vgg(?P<depth>11|13|16|19)(?P<norm>_bn)?', {'name': 'vgg'}),
    (r'googlenet', {'name': 'googlenet'}),
    (r'inception_v3', {'name': 'inception_v3'}),
    (r'mobilenet_?v2(_100)?', {'name': 'mobilenet_v2'}),
    (r'(vit|deit)_(?P<size>tiny|small|base)_patch16_(?P<side>\d+)', {'name': 'vit'}),
)


def described(weights: str) -> dict[str, Any]:
    """The net of published weights, as config.net has it.

    Args:
      weights: 'torchvision:ResNet18_Weights.IMAGENET1K_V1', 'timm:resnet18.tv_in1k',
        'places365:resnet18' or 'hf:timm/resnet18.tv_in1k'.

    Raises:
      ValueError: the name does not tell; then the net has to be given.
    """
    kind, _, rest = weights.partition(':')
    name = rest.rpartition('/')[2].partition('.')[0].lower().removesuffix('_weights')
    for pattern, fixed in NAMES:
        found = re.fullmatch(pattern, name)
        if not found or kind == 'file':  # a file may have any name
            continue
        told = found.groupdict()
        net = dict(fixed)
        if 'depth' in told:
            net['depth'] = int(told['depth'])
        if told.get('norm'):
            net['norm'] = True
        if 'size' in told:
            net['size'] = told['size']
        given = declared_input(weights)
        if 'side' in told:
            given['size'] = int(told['side'])
        return net | ({'input': given} if given else {})
    raise ValueError(f'{weights}: the name does not tell the net; say which')
