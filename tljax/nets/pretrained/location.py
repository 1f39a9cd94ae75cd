"""From the string that names weights to a file on this machine, fetched if need be."""

import hashlib
import json
import os
import re
from pathlib import Path

from tljax.types import unknown

KINDS = ('timm', 'hf', 'torchvision', 'places365', 'file')

TORCHVISION_URL = 'https://download.pytorch.org/models/'
# Names as torchvision has them; the file names end in the first eight digits of their SHA-256.
TORCHVISION = {
    'VGG11_Weights.IMAGENET1K_V1': 'vgg11-8a719046.pth',
    'VGG11_BN_Weights.IMAGENET1K_V1': 'vgg11_bn-6002323d.pth',
    'VGG13_Weights.IMAGENET1K_V1': 'vgg13-19584684.pth',
    'VGG13_BN_Weights.IMAGENET1K_V1': 'vgg13_bn-abd245e5.pth',
    'VGG16_Weights.IMAGENET1K_V1': 'vgg16-397923af.pth',
    'VGG16_BN_Weights.IMAGENET1K_V1': 'vgg16_bn-6c64b313.pth',
    'VGG19_Weights.IMAGENET1K_V1': 'vgg19-dcbb9e9d.pth',
    'VGG19_BN_Weights.IMAGENET1K_V1': 'vgg19_bn-c79401a0.pth',
    'GoogLeNet_Weights.IMAGENET1K_V1': 'googlenet-1378be20.pth',
    'Inception_V3_Weights.IMAGENET1K_V1': 'inception_v3_google-0cc3c7bd.pth',
    'ResNet18_Weights.IMAGENET1K_V1': 'resnet18-f37072fd.pth',
    'ResNet34_Weights.IMAGENET1K_V1': 'resnet34-b627a593.pth',
    'ResNet50_Weights.IMAGENET1K_V1': 'resnet50-0676ba61.pth',
    'ResNet50_Weights.IMAGENET1K_V2': 'resnet50-11ad3fa6.pth',
    'ResNet101_Weights.IMAGENET1K_V1': 'resnet101-63fe2227.pth',
    'ResNet101_Weights.IMAGENET1K_V2': 'resnet101-cd907fc2.pth',
    'ResNet152_Weights.IMAGENET1K_V1': 'resnet152-394f9c45.pth',
    'ResNet152_Weights.IMAGENET1K_V2': 'resnet152-f82ba261.pth',
    'MobileNet_V2_Weights.IMAGENET1K_V1': 'mobilenet_v2-b0353104.pth',
    'MobileNet_V2_Weights.IMAGENET1K_V2': 'mobilenet_v2-7ebf99e0.pth',
}

PLACES365_URL = 'http://places2.csail.mit.edu/models_places365/'
PLACES365 = {arch: f'{arch}_places365.pth.tar' for arch in ('resnet18', 'resnet50')}

# Names of files for dilated convolutions, mostly of segmentation. What is in them has the names and
# shapes of weights for strides: it would load into the usual net, and fit nothing.
DILATED = r'dilated|deeplab|fcn_resnet|(^|[^a-z])drn_'

# In a repository of the Hugging Face hub, the first that is there.
HUB_FILES = ('model.safetensors', 'pytorch_model.bin')


def is_published(name: str) -> bool:
    """Whether a string names weights ('timm:...') rather than a run's directory."""
    return name.partition(':')[0] in KINDS and ':' in name


def locate(name: str, output_stride: int = 32) -> Path:
    """The file that a string names, downloaded into its source's usual cache if need be.

    Args:
      name: 'timm:resnet18.tv_in1k', 'hf:owner/repository' (optionally with '/file' after it),
        'torchvision:ResNet18_Weights.IMAGENET1K_V1', 'places365:resnet18', 'file:weights.pth'.
      output_stride: of the net that they are for.

    Raises:
      ValueError: no such name, or that of a net with dilated convolutions for one without; what is
        in the cache has another checksum than its source publishes, or it can't be
        fetched; the message says what to put where.
    """
    kind, _, rest = name.partition(':')
    if kind not in KINDS:
        raise unknown('kind of weights', kind, KINDS)
    told = re.search(DILATED, (Path(rest).name if kind == 'file' else rest).lower())
    if told and output_stride == 32:
        raise ValueError(
            f'{name}: its name tells of dilated convolutions; give its net an output_stride of 8 '
            'or 16, which ResNets have (--config.net.output_stride=8), or take weights of the '
            'usual net, which has strides'
        )
    if kind == 'file':
        return Path(rest).expanduser()
    if kind in ('timm', 'hf'):
        return _from_hub(f'timm/{rest}' if kind == 'timm' else rest, name)
    table, url = {
        'torchvision': (TORCHVISION, TORCHVISION_URL),
        'places365': (PLACES365, PLACES365_URL),
    }[kind]
    if rest not in table:
        raise unknown(f'{kind} weights', rest, table)
    return _from_url(url + table[rest], name)


def declared_input(name: str) -> dict[str, tuple[float, ...]]:
    """The mean and std of the images that weights were trained on, where the hub's card says it.

    Args:
      name: of the weights, as `locate` takes it.

    Returns:
      'mean' and 'std', or nothing.
    """
    kind, _, rest = name.partition(':')
    if kind not in ('timm', 'hf'):
        return {}
    repository = f'timm/{rest}' if kind == 'timm' else '/'.join(rest.split('/')[:2])
    try:
        card = json.loads(_from_hub(f'{repository}/config.json', name).read_text())
    except ValueError:  # no card, or no network: the weights alone will do
        return {}
    trained = card.get('pretrained_cfg', card)
    return {key: tuple(trained[key]) for key in ('mean', 'std') if key in trained}


def torch_cache() -> Path:
    """Where PyTorch keeps what it downloads: files fetched by it are found, and the reverse."""
    cache = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    home = os.environ.get('TORCH_HOME') or f'{cache}/torch'
    return Path(home).expanduser() / 'hub' / 'checkpoints'


def _from_url(url: str, name: str) -> Path:
    path = torch_cache() / url.rpartition('/')[2]
    if not path.exists():
        _download(url, path, name)
    published = re.search(r'-([0-9a-f]{8,})\.', path.name)
    if published:
        with path.open('rb') as file:
            digest = hashlib.file_digest(file, 'sha256').hexdigest()
        if not digest.startswith(published[1]):
            raise ValueError(
                f'{path}: its SHA-256 begins with {digest[:8]}, but {name} has {published[1]}; '
                'it is damaged or another file: remove it'
            )
    return path


def _download(url: str, path: Path, name: str) -> None:
    try:
        import pooch
    except ImportError:
        raise ValueError(f"{name}: needs pooch to fetch it; pip install -e '.[hub]'") from None
    try:
        # No hash here: sources publish the beginning of one, which is checked after.
        pooch.retrieve(url, known_hash=None, fname=path.name, path=path.parent)
    except OSError as error:
        raise ValueError(_unreachable(name, url, path, error)) from None


def _unreachable(name: str, url: str, path: Path | str, error: Exception) -> str:
    return (
        f"{name}: can't be fetched ({type(error).__name__}). On a machine with network download "
        f'{url} and put it at {path}, or anywhere and give file:<its path>'
    )


def _from_hub(repository: str, name: str) -> Path:
    try:
        import huggingface_hub as hub
        from huggingface_hub import constants, errors
    except ImportError:
        raise ValueError(f"{name}: needs huggingface_hub; pip install -e '.[hub]'") from None
    owner, _, rest = repository.partition('/')
    model, _, file = rest.partition('/')
    if not model:
        raise ValueError(f'{name}: expected hf:owner/repository')
    repository, files = f'{owner}/{model}', (file,) if file else HUB_FILES
    for one in files:
        # What is there already needs no network.
        if isinstance(found := hub.try_to_load_from_cache(repository, one), str):
            return Path(found)
    for one in files:
        try:
            return Path(hub.hf_hub_download(repository, one))
        except errors.LocalEntryNotFoundError as error:  # before its parent, EntryNotFound
            url = hub.hf_hub_url(repository, one)
            cache = f'the cache {constants.HF_HUB_CACHE}'
            raise ValueError(_unreachable(name, url, cache, error)) from None
        except errors.RepositoryNotFoundError:
            hint = '; give the tag too, as in timm:resnet18.tv_in1k' * name.startswith('timm:')
            raise ValueError(f'{name}: the hub has no repository {repository}{hint}') from None
        except errors.EntryNotFoundError:
            continue
        except OSError as error:
            url = hub.hf_hub_url(repository, one)
            raise ValueError(_unreachable(name, url, 'the cache', error)) from None
    raise ValueError(f'{name}: {repository} has none of {", ".join(files)}; name one after it')
