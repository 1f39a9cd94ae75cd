"""Where published weights are: caches, checksums, and what is said off line."""

import hashlib
import json

import numpy as np
import pytest

from tests.nets import published
from tests.nets.published import SMALL
from tljax.nets import pretrained
from tljax.nets.pretrained import files, location

CASE = SMALL['cifar_resnet20']


def test_what_names_weights():
    for name in ('timm:x', 'hf:a/b', 'torchvision:x', 'places365:resnet18', 'file:a.npz'):
        assert pretrained.is_published(name)
    for name in ('runs/digits', '', 'file', '/abs/path'):
        assert not pretrained.is_published(name)


@pytest.mark.parametrize(
    'spec, message',
    [
        ('tim:resnet18', "unknown kind of weights 'tim'.*mean 'timm'"),
        ('torchvision:ResNet18', "unknown torchvision weights 'ResNet18'"),
        ('places365:vgg16', 'there are resnet18, resnet50'),
        ('hf:alone', 'expected hf:owner/repository'),
        (
            'torchvision:FCN_ResNet50_Weights.COCO_V1',
            'its name tells of dilated convolutions; give',
        ),
        ('file:a/resnet50-dilated8.pth', 'its name tells of dilated convolutions; give its net an'),
        ('hf:a/deeplabv3_resnet50', 'its name tells of dilated convolutions; give its net an outp'),
    ],
)
def test_a_name_that_is_none(spec, message):
    with pytest.raises(ValueError, match=message):
        location.locate(spec)


def test_a_dilated_net_takes_what_is_named_so():
    found = location.locate('file:a/resnet50-dilated8.pth', output_stride=8)
    assert found.name == 'resnet50-dilated8.pth'


def test_torch_cache_is_shared_and_checked(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    cache = tmp_path / 'hub' / 'checkpoints'
    cache.mkdir(parents=True)
    content = b'weights'
    digest = hashlib.sha256(content).hexdigest()[:8]
    monkeypatch.setitem(location.TORCHVISION, 'X_Weights.V1', f'x-{digest}.pth')
    (cache / f'x-{digest}.pth').write_bytes(content)
    assert location.locate('torchvision:X_Weights.V1') == cache / f'x-{digest}.pth'
    (cache / f'x-{digest}.pth').write_bytes(b'other')
    with pytest.raises(ValueError, match=f'SHA-256 begins with .* but .* has {digest}.*remove it'):
        location.locate('torchvision:X_Weights.V1')
    (cache / 'resnet18_places365.pth.tar').write_bytes(content)
    assert location.locate('places365:resnet18').parent == cache


def test_downloads_up_to_the_call(tmp_path, monkeypatch):
    import pooch

    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    calls = []

    def off_line(url, known_hash, fname, path):
        calls.append(url)
        raise ConnectionError('no route')

    monkeypatch.setattr(pooch, 'retrieve', off_line)
    where = tmp_path / 'hub' / 'checkpoints' / 'resnet18-f37072fd.pth'
    with pytest.raises(ValueError, match=rf'fetched .ConnectionError.*{where}.*file:'):
        location.locate('torchvision:ResNet18_Weights.IMAGENET1K_V1')
    assert calls == ['https://download.pytorch.org/models/resnet18-f37072fd.pth']


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty cache of the Hugging Face hub, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    return tmp_path


def test_hub_cache(hub_cache):
    source = published.weights(published.golden('cifar_resnet20')[0])
    folder = hub_cache / 'models--timm--tiny.in1k'
    snapshot = folder / 'snapshots' / 'abc'
    snapshot.mkdir(parents=True)
    (folder / 'refs').mkdir()
    (folder / 'refs' / 'main').write_text('abc')
    files.write(snapshot / 'model.safetensors', source)
    for spec in ('timm:tiny.in1k', 'hf:timm/tiny.in1k', 'hf:timm/tiny.in1k/model.safetensors'):
        assert location.locate(spec).read_bytes() == (snapshot / 'model.safetensors').read_bytes()
    card = {'pretrained_cfg': {'mean': [0.5] * 3, 'std': [0.229, 0.224, 0.225]}}
    (snapshot / 'config.json').write_text(json.dumps(card))
    with pytest.warns(UserWarning, match=r'trained on images of mean .*set net.input.mean'):
        params, _ = pretrained.load(
            'timm:tiny.in1k', CASE.net, *published.shapes(CASE), take='head'
        )
    np.testing.assert_array_equal(params['head']['bias'], source['linear.bias'])


def test_off_line_hub_says_what_to_do(hub_cache):
    url = 'https://huggingface.co/timm/none/resolve/main/model.safetensors'
    with pytest.raises(ValueError, match=rf'network download {url} and .* file:'):
        location.locate('timm:none')
