"""Scratch, frozen features or fine-tuning: any published weights, any data set.

Paper: Kornblith et al., 2019, "Do better ImageNet models transfer better?", arXiv:1805.08974, whose
three ways these are. All training images of DATA, tested on its full test split; three seeds. The
arms differ in where they start, in what moves (norms keep the statistics and scales they come with)
and in the rate. The argument is WEIGHTS,DATA[,NET], as in configs/probe.py.

    python launch/train.py --config configs/finetune.py:places365:resnet18,folder:PATH \
        --workdir runs/finetune

The frozen arm sees each image once and as it is; the others see it flipped and shifted.

Expected: ants and bees (hymenoptera) from ImageNet's MobileNetV2, mean ± standard deviation, with
`--config.data.size=96 --config.steps=150`, which a CPU can do: scratch 65.4 ± 4.1, frozen
82.6 ± 0.4 (helps), fine-tuned 87.1 ± 1.6 (helps).
Time: 42 min on 2 busy CPU cores.
"""

from configs import probe
from tljax import config
from tljax.data.sources import test_split


def get_config(argument: str = 'torchvision:ResNet18_Weights.IMAGENET1K_V1,tfds:eurosat'):
    """`argument` is WEIGHTS,DATA[,NET]."""
    weights, data, net = probe.parsed(argument)
    if len(data) != 1:
        raise ValueError(f'{argument!r} is not WEIGHTS,DATA[,NET as JSON]')
    c, dataset = config.default(), data[0]
    c.name = f'{config.label(dataset)}_finetune'
    c.title = f'{config.label(dataset)} from {config.label(weights)}'
    c.net = net
    c.hparams.rate = 0.02
    c.optimizer.schedule = 'cosine'
    c.optimizer.warmup = 20
    c.loop = False
    c.data.streams.source = config.stream(dataset, batch=32, augment='flip|shift:8')
    c.data.evaluate.test = config.held_out(dataset, split=test_split(dataset))
    c.members.seed = (0, 1, 2)
    c.block = 64
    c.steps = 200
    config.transfer_study(c, weights=weights)
    c.runs.frozen.data = {'streams': {'source': {'augment': ''}}}
    c.runs.fine_tuned.update(trains='encoder|!encoder/**/norm*|head', hparams={'rate': 5e-4})
    return c
