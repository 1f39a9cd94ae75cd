"""The net that the name of published weights tells."""

import json

import pytest

from tljax.nets import build_backbone
from tljax.nets.pretrained import described, location


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setattr(location, '_from_hub', no_card)


def no_card(repository, name):
    raise ValueError(f'{name} has no card')


@pytest.mark.parametrize(
    ('weights', 'net'),
    [
        ('torchvision:ResNet18_Weights.IMAGENET1K_V1', {'name': 'imagenet_resnet', 'depth': 18}),
        ('torchvision:VGG16_Weights.IMAGENET1K_V1', {'name': 'vgg', 'depth': 16}),
        ('timm:vgg11_bn.tv_in1k', {'name': 'vgg', 'depth': 11, 'norm': True}),
        ('hf:timm/resnet152.a1_in1k', {'name': 'imagenet_resnet', 'depth': 152}),
        ('places365:resnet50', {'name': 'imagenet_resnet', 'depth': 50}),
        ('timm:mobilenetv2_100.ra_in1k', {'name': 'mobilenet_v2'}),
        (
            'timm:deit_tiny_patch16_224.fb_in1k',
            {'name': 'vit', 'size': 'tiny', 'input': {'size': 224}},
        ),
    ],
)
def test_names(weights, net):
    assert described(weights) == net
    build_backbone(**{key: value for key, value in net.items() if key != 'input'})


@pytest.mark.parametrize('name', location.TORCHVISION)
def test_all_of_torchvisions_are_known(name):
    assert build_backbone(**described(f'torchvision:{name}'))


def test_the_card_tells_how_images_are_normalised(monkeypatch, tmp_path):
    card = tmp_path / 'config.json'
    card.write_text(json.dumps({'pretrained_cfg': {'mean': [0.4] * 3, 'std': [0.3] * 3}}))
    monkeypatch.setattr(location, '_from_hub', lambda *_: card)
    found = described('timm:vit_base_patch16_384.x')['input']
    assert found == {'mean': (0.4,) * 3, 'std': (0.3,) * 3, 'size': 384}


@pytest.mark.parametrize('weights', ['file:resnet18.pth', 'timm:convnext_tiny.x', 'hf:a/b'])
def test_others_do_not_tell(weights):
    with pytest.raises(ValueError, match=f'{weights}: the name does not tell the net; say which'):
        described(weights)
