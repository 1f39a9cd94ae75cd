"""The PyTorch side of launch/benchmark.py: the same nets in the usual eager loop."""

import torch
import torch.nn.functional as F
from torch import nn


class LeNet(nn.Module):
    """tljax.nets.LeNet with a head and, for DANN, a discriminator."""

    def __init__(self, classes: int = 10, discriminator: bool = False):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.dense, self.head = nn.Linear(800, 500), nn.Linear(500, classes)
        if discriminator:
            self.discriminator = nn.Sequential(
                nn.Linear(500, 500), nn.ReLU(), nn.Linear(500, 500), nn.ReLU(), nn.Linear(500, 1)
            )

    def features(self, x):
        # ReLU after the pool, as in ours: equal, and cheaper for both.
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        return F.relu(self.dense(x.flatten(1)))


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


def supervised(net, batch):
    return F.cross_entropy(net.head(net.features(batch['image'])), batch['label'])


def dann(net, batch):
    features = net.features(torch.cat([batch['image'], batch['target']]))
    count = len(batch['image'])
    loss = F.cross_entropy(net.head(features[:count]), batch['label'])
    domain = (torch.arange(len(features)) < count).float()
    logits = net.discriminator(Reverse.apply(features))[:, 0]
    return loss + F.binary_cross_entropy_with_logits(logits, domain)


def loop(case: str, batches: dict, rate: float, momentum: float):
    """A function of a number of steps that trains so long."""
    net = LeNet(discriminator=case == 'dann')
    loss = {'supervised': supervised, 'dann': dann}[case]
    optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=momentum)
    data = {key: torch.from_numpy(value) for key, value in batches.items()}
    data = {k: v.movedim(-1, 2).contiguous() if v.ndim == 5 else v.long() for k, v in data.items()}
    count = len(data['label'])

    def run(steps: int):
        for step in range(steps):
            optimizer.zero_grad()
            loss(net, {key: value[step % count] for key, value in data.items()}).backward()
            optimizer.step()

    return run
