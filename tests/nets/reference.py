"""The reference implementations (PyTorch, torchvision, timm), run endpoint by endpoint."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tests.nets.published import CLASSES

try:
    import torchvision
except RuntimeError:
    # Beside a CPU build of PyTorch it misses two operators, which nothing here uses.
    LIBRARY = torch.library.Library('torchvision', 'DEF')
    for operator in ('nms', 'qnms'):
        LIBRARY.define(f'{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    import torchvision

import timm

models = torchvision.models


class CifarBlock(nn.Module):
    """Option A, as the published CIFAR checkpoints have it."""

    def __init__(self, inner, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inner, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.new = width - inner

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.new:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.new // 2, self.new // 2))
        return F.relu(x + y)


class CifarResNet(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        inner = 16
        for i, width in enumerate((16, 32, 64), start=1):
            chain = [CifarBlock(inner, width, 1 if i == 1 else 2)]
            chain += [CifarBlock(width, width, 1) for _ in range(blocks - 1)]
            setattr(self, f'layer{i}', nn.Sequential(*chain))
            inner = width
        self.linear = nn.Linear(64, CLASSES)


def pooled(x):
    return x.mean((2, 3))


def cifar_resnet(depth, size):
    m = CifarResNet((depth - 2) // 6)
    stages = {'stem': lambda x: F.relu(m.bn1(m.conv1(x)))}
    stages |= {f'stage{i}': getattr(m, f'layer{i}') for i in (1, 2, 3)}
    return m, {**stages, 'features': pooled, 'head': m.linear}


def resnet(depth, size):
    m = getattr(models, f'resnet{depth}')(num_classes=CLASSES)
    stages = {'stem': nn.Sequential(m.conv1, m.bn1, m.relu, m.maxpool)}
    stages |= {f'stage{i}': getattr(m, f'layer{i}') for i in (1, 2, 3, 4)}
    return m, {**stages, 'features': pooled, 'head': m.fc}


def mobilenet(multiplier, size):
    m = models.mobilenet_v2(width_mult=multiplier, num_classes=CLASSES)
    cuts = np.cumsum([1, 1, 2, 3, 4, 3, 3, 1])
    stages = {'stem': m.features[0]}
    for i in range(7):
        stages[f'stage{i + 1}'] = m.features[cuts[i] : cuts[i + 1]]
    return m, {**stages, 'top': m.features[18], 'features': pooled, 'head': m.classifier[1]}


def mobilenet_same(name, size):
    m = timm.create_model(name, num_classes=CLASSES, pad_type='same', bn_eps=1e-3)
    stages = {'stem': nn.Sequential(m.conv_stem, m.bn1)}
    stages |= {f'stage{i + 1}': m.blocks[i] for i in range(7)}
    top = nn.Sequential(m.conv_head, m.bn2)
    return m, {**stages, 'top': top, 'features': pooled, 'head': m.classifier}


def vgg(depth, norm, width, dense, size):
    columns = {11: 'A', 13: 'B', 16: 'D', 19: 'E'}
    plan = [w if w == 'M' else w * width // 64 for w in models.vgg.cfgs[columns[depth]]]
    m = models.VGG(models.vgg.make_layers(plan, norm), CLASSES, init_weights=False)
    sizes = (49 * plan[-2], dense, dense, CLASSES)
    for index, i in ((0, 0), (3, 1), (6, 2)):
        m.classifier[index] = nn.Linear(sizes[i], sizes[i + 1])
    pools = [i for i, layer in enumerate(m.features) if isinstance(layer, nn.MaxPool2d)]
    stages, begin = {}, 0
    for i, end in enumerate(pools, start=1):
        stages[f'stage{i}'], begin = m.features[begin : end + 1], end + 1
    fc6 = nn.Sequential(m.avgpool, nn.Flatten(), m.classifier[:2])
    rest = {'fc6': fc6, 'fc7': m.classifier[3:5], 'features': nn.Identity()}
    return m, {**stages, **rest, 'head': m.classifier[6]}


def vgg_timm(size):
    plan = [w if w == 'M' else w // 8 for w in models.vgg.cfgs['D']]
    m = timm.models.vgg.VGG(plan, CLASSES)
    m.pre_logits = timm.models.vgg.ConvMlp(plan[-2], 48, 7)
    m.head.fc = nn.Linear(48, CLASSES)
    stages, begin = {}, 0
    pools = [i for i, layer in enumerate(m.features) if isinstance(layer, nn.MaxPool2d)]
    for i, end in enumerate(pools, start=1):
        stages[f'stage{i}'], begin = m.features[begin : end + 1], end + 1
    p = m.pre_logits
    fc6 = nn.Sequential(p.fc1, nn.ReLU(), nn.Flatten())
    fc7 = nn.Sequential(nn.Unflatten(1, (-1, 1, 1)), p.fc2, nn.ReLU(), nn.Flatten())
    rest = {'fc6': fc6, 'fc7': fc7, 'features': nn.Identity()}
    return m, {**stages, **rest, 'head': m.head.fc}


def vit(name, size, **options):
    m = timm.create_model(name, num_classes=CLASSES, img_size=size, **options)
    stages = {'embed': lambda x: m._pos_embed(m.patch_embed(x))}
    stages |= {f'block{i + 1}': block for i, block in enumerate(m.blocks)}
    return m, {**stages, 'norm': m.norm, 'features': lambda x: x[:, 0], 'head': m.head}


def googlenet(size):
    m = models.googlenet(num_classes=CLASSES, aux_logits=True, init_weights=False)
    stages = {'stem': nn.Sequential(m.conv1, m.maxpool1, m.conv2, m.conv3, m.maxpool2)}
    for x in ('3a', '3b', '4a', '4b', '4c', '4d', '4e', '5a', '5b'):
        block = getattr(m, f'inception{x}')
        pools = {'4a': m.maxpool3, '5a': m.maxpool4}
        stages[f'mixed{x}'] = nn.Sequential(pools[x], block) if x in pools else block
    stages |= {'features': pooled, 'head': m.fc}
    return m, stages, {'aux1': ('mixed4a', m.aux1), 'aux2': ('mixed4d', m.aux2)}


def inception(aux, size):
    m = models.inception_v3(num_classes=CLASSES, aux_logits=aux, init_weights=False)
    stem = (m.Conv2d_1a_3x3, m.Conv2d_2a_3x3, m.Conv2d_2b_3x3, m.maxpool1)
    stem = nn.Sequential(*stem, m.Conv2d_3b_1x1, m.Conv2d_4a_3x3, m.maxpool2)
    stages = {'stem': stem}
    for x in ('5b', '5c', '5d', '6a', '6b', '6c', '6d', '6e', '7a', '7b', '7c'):
        stages[f'mixed{x}'] = getattr(m, f'Mixed_{x}')
    stages |= {'features': pooled, 'head': m.fc}
    return m, stages, {'aux': ('mixed6e', m.AuxLogits)} if aux else {}


def build(name: str, size: int):
    """`(model, {endpoint: function}, {role: (endpoint, module)})` of a case, in evaluation mode."""
    base, *rest = name.split('_')
    if name.startswith('mobilenet_v2'):
        whole = '1.0' in name
        if name.endswith('same'):
            made = mobilenet_same('mobilenetv2_100' if whole else 'mobilenetv2_035', size)
        else:
            made = mobilenet(1.0 if whole else 0.35, size)
    elif base == 'cifar':
        made = cifar_resnet(int(rest[0].removeprefix('resnet')), size)
    elif name == 'vgg16_timm':
        made = vgg_timm(size)
    elif base.startswith('vgg'):
        widths = (64, 4096) if name == 'vgg16_224' else (8, 48)
        made = vgg(int(base.removeprefix('vgg')), 'bn' in rest, *widths, size)
    elif base.startswith('resnet'):
        made = resnet(int(base.removeprefix('resnet')), size)
    elif base == 'vit':
        small = {} if '224' in rest else {'depth': 2}
        made = vit(f'vit_{rest[0]}_patch16_224', size, **small)
    else:
        made = googlenet(size) if base == 'googlenet' else inception('299' in rest, size)
    model, stages, *aux = made
    return model.eval(), stages, aux[0] if aux else {}


def state_shapes(model) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(value.shape)
        for name, value in model.state_dict().items()
        if not name.endswith('num_batches_tracked')
    }


def fill(model, arrays) -> None:
    """Puts weights into a model; nothing but the counters of norms may be left over."""
    result = model.load_state_dict({n: torch.tensor(a) for n, a in arrays.items()}, strict=False)
    assert not result.unexpected_keys
    assert all(name.endswith('num_batches_tracked') for name in result.missing_keys)


def last(x: torch.Tensor) -> np.ndarray:
    """Channels last, as ours are."""
    x = x.detach()
    return (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).contiguous().numpy()


def outputs(stages, aux, images: np.ndarray) -> dict[str, np.ndarray]:
    """All endpoints and heads of images [N, H, W, 3], channels last."""
    x, found = torch.tensor(images).permute(0, 3, 1, 2).contiguous(), {}
    with torch.no_grad():
        for name, stage in stages.items():
            # Some stages end in an activation in place.
            found[name] = x = stage(x).clone()
        for role, (endpoint, head) in aux.items():
            found[role] = head(found[endpoint])
    return {name: last(x) for name, x in found.items()}


def gradients(model, stages, images: np.ndarray) -> dict[str, np.ndarray]:
    """The gradient of sum(logits^2) / 2 with respect to all parameters."""
    x = torch.tensor(images).permute(0, 3, 1, 2).contiguous()
    for stage in stages.values():
        x = stage(x)
    ((x**2).sum() / 2).backward()
    return {name: p.grad.numpy() for name, p in model.named_parameters()}
