"""The PyTorch networks of benchmark.py: `features(x)` of images, and a `head`.

Each is the counterpart of a backbone of `tljax.nets`, for its speed only: weights are random.
"""

import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    """A trunk to [N, D], and a head; for domain adaptation also a discriminator of features."""

    def __init__(self, width: int, classes: int, discriminator: bool = False):
        super().__init__()
        self.head = nn.Linear(width, classes)
        if discriminator:
            self.discriminator = nn.Sequential(
                nn.Linear(width, 500), nn.ReLU(), nn.Linear(500, 500), nn.ReLU(), nn.Linear(500, 1)
            )


class LeNet(Net):
    def __init__(self, classes: int = 10, **options):
        super().__init__(500, classes, **options)
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.dense = nn.Linear(800, 500)

    def features(self, x):
        # ReLU after the pool, as in ours: equal, and cheaper for both.
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        return F.relu(self.dense(x.flatten(1)))


class Conv4(Net):
    def __init__(self, classes: int = 10, **options):
        super().__init__(64, classes, **options)
        sizes = ((1, 64), (64, 64), (64, 64), (64, 64))
        self.layers = nn.Sequential(
            *(
                # The norm after the pool, as in ours: cheaper for both.
                nn.Sequential(
                    nn.Conv2d(*size, 3, padding=1, bias=False),
                    nn.MaxPool2d(2),
                    nn.BatchNorm2d(64),
                    nn.ReLU(inplace=True),
                )
                for size in sizes
            )
        )

    def features(self, x):
        return self.layers(x).flatten(1)


def unit(inner, width, kernel=1, stride=1, groups=1, act=nn.ReLU):
    """Convolution, norm, activation."""
    conv = nn.Conv2d(inner, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    last = [act(inplace=True)] if act else []
    return nn.Sequential(conv, nn.BatchNorm2d(width), *last)


class Residual(nn.Module):
    """relu(shortcut(x) + branch(x)); the shortcut is a projection, or option A (CIFAR)."""

    def __init__(self, inner, width, stride, bottleneck=False, project=True):
        super().__init__()
        outer = 4 * width if bottleneck else width
        sizes = [(width, 1, 1), (width, 3, stride), (outer, 1, 1)]
        sizes = sizes if bottleneck else [(width, 3, stride), (width, 3, 1)]
        chain = []
        for i, (size, kernel, step) in enumerate(sizes, start=1):
            chain.append(unit(inner if i == 1 else chain[-1][0].out_channels, size, kernel, step))
        chain[-1] = chain[-1][:2]  # the activation is after the sum
        self.branch, self.stride, self.new = nn.Sequential(*chain), stride, outer - inner
        self.shortcut = None
        if project and (self.new or stride > 1):
            self.shortcut = unit(inner, outer, 1, stride, act=None)

    def forward(self, x):
        y = self.branch(x)
        if self.shortcut:
            x = self.shortcut(x)
        elif self.new:
            half = self.new // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.new - half))
        return F.relu_(x + y)


def stage(inner, width, blocks, stride, **options):
    outer = 4 * width if options.get('bottleneck') else width
    first = Residual(inner, width, stride, **options)
    return nn.Sequential(first, *(Residual(outer, width, 1, **options) for _ in range(blocks - 1)))


class ResNet(Net):
    """ResNet-18 or 50."""

    def __init__(self, depth: int, classes: int = 10):
        blocks, bottleneck = {18: ((2, 2, 2, 2), False), 50: ((3, 4, 6, 3), True)}[depth]
        times = 4 if bottleneck else 1
        super().__init__(512 * times, classes)
        self.stem = nn.Sequential(unit(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1))
        inner = 64
        for i, (width, count) in enumerate(zip((64, 128, 256, 512), blocks, strict=True), start=1):
            chain = stage(inner, width, count, 1 if i == 1 else 2, bottleneck=bottleneck)
            setattr(self, f'stage{i}', chain)
            inner = width * times

    def features(self, x):
        x = self.stage3(self.stage2(self.stage1(self.stem(x))))
        return self.stage4(x).mean((2, 3))


class CifarResNet(Net):
    """ResNet-20 and deeper."""

    def __init__(self, depth: int, classes: int = 10):
        super().__init__(64, classes)
        chain = [unit(3, 16, 3)]
        for inner, width, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2)):
            chain.append(stage(inner, width, (depth - 2) // 6, stride, project=False))
        self.trunk = nn.Sequential(*chain)

    def features(self, x):
        return self.trunk(x).mean((2, 3))


class Inverted(nn.Module):
    def __init__(self, inner, width, expansion, stride):
        super().__init__()
        hidden = inner * expansion
        chain = [unit(inner, hidden, act=nn.ReLU6)] if expansion > 1 else []
        chain += [unit(hidden, hidden, 3, stride, hidden, nn.ReLU6), unit(hidden, width, act=None)]
        self.branch, self.adds = nn.Sequential(*chain), inner == width and stride == 1

    def forward(self, x):
        return x + self.branch(x) if self.adds else self.branch(x)


class MobileNetV2(Net):
    def __init__(self, classes: int = 10):
        super().__init__(1280, classes)
        chain, inner = [unit(3, 32, 3, 2, act=nn.ReLU6)], 32
        rows = (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1)
        for expansion, width, blocks, stride in (*rows, (6, 160, 3, 2), (6, 320, 1, 1)):
            for i in range(blocks):
                chain.append(Inverted(inner, width, expansion, stride if i == 0 else 1))
                inner = width
        self.trunk = nn.Sequential(*chain, unit(320, 1280, act=nn.ReLU6))

    def features(self, x):
        return self.trunk(x).mean((2, 3))


NETS = {
    'lenet': LeNet,
    'cifar_resnet': CifarResNet,
    'conv4': Conv4,
    'imagenet_resnet': ResNet,
    'mobilenet_v2': MobileNetV2,
}
