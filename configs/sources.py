"""Which source? One target with few labels, fine-tuned from each of several sources.

Task: 10 labels per class of TARGET, tested on its full test split; three seeds. Every source is a
data set, on which the net is trained first, or published weights of the same net. The argument is
TARGET,SOURCE+SOURCE..., and `launch/rank.py --study` tells which source the transferability scores
would have chosen without any fine-tuning.

    python launch/train.py --config configs/sources.py:tfds:fashion_mnist,SOURCE+SOURCE \
        --workdir runs/sources
    python launch/rank.py --study runs/sources

Expected: Fashion-MNIST, mean ± standard deviation: scratch 62.4 ± 2.2, from CIFAR-10's weights
70.4 ± 2.1 (helps), digits 66.6 ± 0.5 (helps), MNIST 65.4 ± 0.4 and PACS photo 64.3 ± 2.7 (neutral).
Kendall's tau with that order: NCE +0.67, LEEP and neighbours +0.33, H-score and probe 0.00, LogME
-0.33; four sources make it a coarse measure.
Time: 80 min on one busy CPU core for four sources.
"""

from tljax import config
from tljax.data.sources import test_split
from tljax.nets import pretrained


def get_config(argument: str = 'tfds:fashion_mnist,tfds:mnist+sklearn:digits'):
    """`argument` is TARGET,SOURCE+SOURCE...: data sets or, as sources, weights of the net."""
    target, _, rest = argument.partition(',')
    sources = rest.split('+')
    if not target or not all(sources):
        raise ValueError(f'{argument!r} is not TARGET,SOURCE+SOURCE..., such as tfds:a,tfds:b')
    c = config.default()
    c.name = 'sources'
    c.title = f'Which source for {target}?'
    c.net = {'name': 'cifar_resnet', 'depth': 20}
    c.hparams.rate = 0.02
    c.optimizer.schedule = 'cosine'
    c.data.streams.source = config.stream(target, batch=50, labels_per_class=10)
    c.data.evaluate.test = config.held_out(target, split=test_split(target))
    c.members.seed = (0, 1, 2)
    c.sharding.devices = 1  # a small batch, which need not divide over more
    c.steps = 200
    c.compare.update(baseline='scratch', arms=('scratch',))
    c.runs.scratch = {}
    for name, source in zip(config.labels(sources, taken=('scratch',)), sources, strict=True):
        start = source if pretrained.is_published(source) else f'on_{name}'
        if start != source:
            c.runs[start] = _pretraining(source)
        c.runs[name] = {'init': {'from': start, 'load': 'encoder'}}
        c.compare.arms += (name,)
    return c


def _pretraining(source: str) -> dict:
    return {
        'members': {'seed': ()},
        'steps': 500,
        'hparams': {'rate': 0.1},
        'data': {
            'streams': {'source': {'dataset': source, 'batch': 64, 'labels_per_class': 0}},
            'evaluate': {'test': {'dataset': source, 'split': test_split(source)}},
        },
    }
