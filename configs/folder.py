"""Any folder of class sub-folders, from scratch or from the encoder of an earlier run."""

from tljax import config


def get_config(path: str = '../shared/data/hymenoptera'):
    c = config.default()
    c.name = 'folder'
    c.title = f'Images of {path}'
    c.net = {'name': 'resnet', 'input': {'size': 32, 'channels': 3}}
    c.hparams.rate = 0.05
    c.hparams.weight_decay = 5e-4
    c.optimizer.schedule = 'cosine'
    c.optimizer.warmup = 50
    c.data.streams.source = config.stream(f'folder:{path}', batch=64, augment='flip|shift:4')
    c.data.evaluate.test = config.held_out(f'folder:{path}')
    c.steps = 600
    c.evaluate_every = 100
    return c
