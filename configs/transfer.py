"""Scratch, frozen features or fine-tuning, from any data set to any other."""

from tljax import config


def get_config(argument: str = 'tfds:mnist,tfds:fashion_mnist'):
    """`argument` is SOURCE,TARGET: two data sets with splits 'train' and 'test'."""
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
    c.data.evaluate.test = config.held_out(target)
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
                'evaluate': {'test': {'dataset': source}},
            },
        },
    )
