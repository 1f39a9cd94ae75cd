"""The PyTorch side of launch/benchmark.py: the same nets in the usual loop, eager or compiled."""

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from benchmark_nets import NETS
from benchmark_steps import TWO_DOMAINS
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
torch.set_float32_matmul_precision('high')  # as JAX on such a device
torch.backends.cudnn.allow_tf32 = True


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, strength):
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -ctx.strength * gradient, None


def ramp(progress: float) -> float:
    return 2 / (1 + math.exp(-10 * progress)) - 1


def domain_bce(source, target):
    return (F.softplus(-source).mean() + F.softplus(target).mean()) / 2


def mk_mmd(x, y):
    """Unbiased, of five Gaussians around the mean squared distance."""
    z = torch.cat([x, y])
    squared = torch.cdist(z, z, compute_mode='use_mm_for_euclid_dist') ** 2
    width = squared.detach().sum() / (len(z) * (len(z) - 1))
    k = sum(torch.exp(-squared / (width * 2.0**u)) for u in range(-2, 3))
    n = len(x)
    within = (k[:n, :n].sum() - 5 * n + k[n:, n:].sum() - 5 * n) / (n * (n - 1))
    return within - 2 * k[:n, n:].mean()


class Loop:
    """Steps of one method, on batches that lie ready."""

    def __init__(self, net, trains, rate, momentum, steps):
        self.net, self.done, self.steps = net, 0, steps
        self.rate = rate
        params = [p for p in trains if p.requires_grad]
        self.optimizer = torch.optim.SGD(params, lr=rate, momentum=momentum)

    @property
    def progress(self):
        return self.done / self.steps

    def descend(self, loss, optimizer=None):
        optimizer = optimizer or self.optimizer
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def __call__(self, batch):
        self.step(batch)
        self.done += 1


class Supervised(Loop):
    def step(self, batch):
        logits = self.net.head(self.net.features(batch['image']))
        self.descend(F.cross_entropy(logits, batch['label']))


class Dann(Loop):
    def step(self, batch):
        features = self.net.features(torch.cat([batch['image'], batch['target']]))
        count = len(batch['image'])
        loss = F.cross_entropy(self.net.head(features[:count]), batch['label'])
        logits = self.net.discriminator(Reverse.apply(features, ramp(self.progress)))[:, 0]
        self.descend(loss + domain_bce(logits[:count], logits[count:]))


class Dan(Loop):
    def step(self, batch):
        features = self.net.features(torch.cat([batch['image'], batch['target']]))
        count = len(batch['image'])
        logits = self.net.head(features)
        loss = F.cross_entropy(logits[:count], batch['label'])
        apart = sum(mk_mmd(x[:count], x[count:]) for x in (features, logits))
        self.descend(loss + ramp(self.progress) * apart)


class Adda(Loop):
    """Its second phase: the discriminator, then the target's encoder."""

    def __init__(self, net, trains, rate, momentum, steps):
        self.target = copy.deepcopy(net)
        super().__init__(net, net.discriminator.parameters(), rate, momentum, steps)
        parts = dict(self.target.named_children())
        del parts['head'], parts['discriminator']
        encoder = [p for part in parts.values() for p in part.parameters()]
        self.other = torch.optim.SGD(encoder, lr=rate, momentum=momentum)

    def step(self, batch):
        tell = lambda features: self.net.discriminator(features)[:, 0]
        with torch.no_grad():
            source = self.net.features(batch['image'])
        target = self.target.features(batch['target'])
        self.descend(domain_bce(tell(source), tell(target.detach())))
        self.descend(F.softplus(-tell(target)).mean(), self.other)


def pcgrad(products):
    """Weights of T gradients by their inner products [T, T]: Yu et al. 2020, algorithm 1."""
    rows = np.eye(len(products))
    for i, row in enumerate(rows):
        for j in np.random.permutation(len(rows)):
            if j != i and (along := row @ products[:, j]) < 0:
                row[j] -= along / products[j, j]
    return rows.sum(0)


def mgda(products):
    """The same, of least norm in their hull: Sener and Koltun 2018, algorithm 2."""
    corners = np.eye(len(products))
    weights = corners.mean(0)
    for _ in range(250):
        to = corners[np.argmin(products @ weights)] - weights
        step = np.clip(-(to @ products @ weights) / max(to @ products @ to, 1e-12), 0, 1)
        weights = weights + step * to
        if step * np.abs(to).max() < 1e-5:
            break
    return weights


class Tasks(Loop):
    """A head for each task; of surgery, the gradients of the tasks one after the other."""

    def __init__(self, net, trains, rate, momentum, steps, tasks, balancer, at='parameters'):
        self.shared = [p for name, p in net.named_parameters() if not name.startswith('head.')]
        width = net.head.in_features
        net.head = nn.ModuleList(nn.Linear(width, 10) for _ in range(tasks))
        super().__init__(net, net.parameters(), rate, momentum, steps)
        self.solve = {'equal': None, 'pcgrad': pcgrad, 'mgda': mgda}[balancer]
        self.move = self.at_features if at == 'features' else self.at_parameters

    def step(self, batch):
        z = self.net.features(batch['image'])
        if not self.solve:
            self.descend(sum(loss for loss, _ in self.losses(z, batch)))
            return
        self.optimizer.zero_grad()
        self.move(z, batch)
        self.optimizer.step()

    def losses(self, z, batch):
        """Of each task, with the parameters that are its own."""
        for head, label in zip(self.net.head, batch['tasks'], strict=True):
            yield F.cross_entropy(head(z), label), list(head.parameters())

    def at_features(self, z, batch):
        # No leaf, for where operations are counted PyTorch 2.13 differentiates by none.
        cut = z.detach().requires_grad_().view_as(z)
        each = self.gradients(self.losses(cut, batch), [cut])
        z.backward((self.weights(each) @ each).view_as(z))

    def at_parameters(self, z, batch):
        each = self.gradients(self.losses(z, batch), self.shared)
        parts = (self.weights(each) @ each).split([p.numel() for p in self.shared])
        for p, gradient in zip(self.shared, parts, strict=True):
            p.grad = gradient.view_as(p)

    def gradients(self, losses, shared):
        """[T, P] by what is shared; those of a task's own are set."""
        each = []
        for loss, own in losses:
            found = torch.autograd.grad(loss, [*shared, *own], retain_graph=True)
            for p, gradient in zip(own, found[len(shared) :], strict=True):
                p.grad = gradient
            each.append(torch.cat([gradient.flatten() for gradient in found[: len(shared)]]))
        return torch.stack(each)

    def weights(self, each):
        return torch.from_numpy(self.solve((each @ each.T).cpu().numpy())).to(each)


class Prototypical(Loop):
    """Episodes: `way` supports, then their queries, class after class."""

    def __init__(self, net, trains, rate, momentum, steps, draw):
        super().__init__(net, trains, rate, momentum, steps)
        self.way, _, query = map(int, draw.partition(':')[2].split('x'))
        self.label = torch.arange(self.way).repeat_interleave(query)

    def step(self, batch):
        z = self.net.features(batch['image'])
        apart = torch.cdist(z[self.way :], z[: self.way]) ** 2
        self.descend(F.cross_entropy(-apart, self.label))


class Siamese(Loop):
    """Pairs, every other one of one class: Koch's weighted L1 distance."""

    def __init__(self, net, trains, rate, momentum, steps, draw):
        del draw
        super().__init__(net, trains, rate, momentum, steps)

    def step(self, batch):
        x, y = self.net.features(batch['image']).chunk(2)
        same = 1 - torch.arange(len(x), device=x.device) % 2
        logits = self.net.head((x - y).abs())[:, 0]
        self.descend(F.binary_cross_entropy_with_logits(logits, same.to(logits.dtype)))


LOOPS = {'supervised': Supervised, 'dann': Dann, 'dan': Dan, 'adda': Adda, 'multitask': Tasks}
LOOPS |= {'prototypical': Prototypical, 'siamese': Siamese}


def ready() -> None:
    """Starts the backend."""
    torch.zeros(1, device=DEVICE)


def wait() -> None:
    """Until the device has done what it was given."""
    if DEVICE == 'cuda':
        torch.cuda.synchronize()


def build(net: dict, how, **options) -> nn.Module:
    """The net on the device; `how`: the command's, for its precision and compilation."""
    own = {key: value for key, value in net.items() if key != 'name'}
    model = NETS[net['name']](**own, **options).to(DEVICE, memory_format=torch.channels_last)
    if how.bfloat16:
        inner = torch.autocast(DEVICE, torch.bfloat16)(model.features)
        model.features = lambda x: inner(x).float()
    if how.compile:
        model.features = torch.compile(model.features)
    return model


def images(array: np.ndarray) -> torch.Tensor:
    """[N, H, W, C] uint8 -> [N, C, H, W] float in [-1, 1], channels last in memory."""
    return (torch.from_numpy(array).permute(0, 3, 1, 2) / 127.5 - 1).to(
        DEVICE, memory_format=torch.channels_last
    )


def flops(call) -> int:
    """Of the products and convolutions of a call, both ways."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def loop(job, noise: dict, rate: float, momentum: float, how):
    """A function of a number of steps that trains so long, all seeds in turn.

    Args:
      job: a `benchmark_steps.Steps`.
      noise: 'image' and 'target' [P, N, H, W, C] uint8, 'label' [P, N], 'tasks' [T, P, N].
      rate: of SGD.
      momentum: of SGD.
      how: of `build`.
    """
    classes = lambda array: torch.from_numpy(array).long().to(DEVICE)
    batches = [
        {'image': images(x), 'target': images(y), 'label': classes(label)}
        for x, y, label in zip(noise['image'], noise['target'], noise['label'], strict=True)
    ]
    for one, tasks in zip(batches, noise['tasks'].swapaxes(0, 1), strict=True):
        one['tasks'] = classes(tasks)
    adapts = {'discriminator': True} if job.method in TWO_DOMAINS else {}
    several = {'tasks': job.tasks, **job.options} if job.tasks else {}
    several |= {'draw': job.draw} if job.draw else {}
    loops = []
    for _ in range(job.seeds):
        net = build(job.net, how, **adapts)
        if job.trains != 'encoder|head':  # frozen parts: in evaluation mode, without gradients
            for name, module in net.named_children():
                trained = name in job.trains.replace('/', '|').split('|')
                module.train(trained).requires_grad_(trained)
        make = LOOPS[job.method]
        loops.append(make(net, net.parameters(), rate, momentum, job.steps, **several))

    def run(steps: int):
        for one in loops:
            for step in range(steps):
                one(batches[step % len(batches)])
        wait()

    return run


def features(net: dict, array: np.ndarray, how):
    """A function that computes the features of images [N, H, W, C] uint8; `how`: of `build`."""
    model, x = build(net, how).eval(), images(array)

    @torch.inference_mode()
    def run():
        return model.features(x).cpu().numpy()

    return run
