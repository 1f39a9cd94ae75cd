"""Scratch, frozen features or fine-tuning, from any data set to any other.

Paper: Yosinski et al., 2014, "How transferable are features in deep neural networks?",
arXiv:1411.1792, on LeNet. Source: all training images of SOURCE. Target: 10 and 100 labels per
class of TARGET, tested on its full test split; three seeds. The argument is SOURCE,TARGET. Images
of both become 28x28 grey.

    python launch/train.py --config configs/transfer.py:tfds:mnist,tfds:fashion_mnist \
        --workdir runs/mnist_to_fashion_mnist
    python launch/train.py --config configs/transfer.py:tfds:fashion_mnist,tfds:mnist \
        --workdir runs/fashion_mnist_to_mnist

Expected: MNIST -> Fashion-MNIST at 100 labels per class, mean ± standard deviation: scratch
80.9 ± 0.3, frozen 77.9 ± 0.8 (hurts), fine-tuned 81.5 ± 0.2 (neutral). Fashion-MNIST -> MNIST:
95.4 ± 0.2, 93.7 ± 0.4 (hurts), 95.4 ± 0.1 (neutral).
Time: 14 and 11 min on 2 busy CPU cores.
"""

from tljax import config
from tljax.data.sources import test_split


def get_config(argument: str = 'tfds:mnist,tfds:fashion_mnist'):
    """`argument` is SOURCE,TARGET."""
    if argument.count(',') != 1:
        raise ValueError(f'{argument!r} is not SOURCE,TARGET, such as tfds:mnist,folder:PATH')
    source, target = argument.split(',')
    c = config.default()
    c.name = '_to_'.join(
        part.rpartition(':')[2].strip('/').replace('/', '_') for part in (source, target)
    )
    c.title = f'{source} → {target} with few labels'
    c.net = {'name': 'lenet'}
    c.hparams.rate = 0.01
    c.optimizer.schedule = 'cosine'
    c.data.streams.source = config.stream(target, batch=64)
    c.data.wrap = True  # 10 labels of few classes may be fewer than a batch
    c.data.evaluate.test = config.held_out(target, split=test_split(target))
    c.members.seed = (0, 1, 2)
    c.members.labels_per_class = (10, 100)
    c.steps = 1000
    c.evaluate_every = 250
    return config.transfer_study(
        c,
        pretrain={
            'members': {'labels_per_class': ()},
            'steps': 2000,
            'data': {
                'streams': {'source': {'dataset': source, 'batch': 128}},
                'evaluate': {'test': {'dataset': source, 'split': test_split(source)}},
            },
        },
    )
