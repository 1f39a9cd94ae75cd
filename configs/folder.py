"""Any folder of class sub-folders, from scratch or from the encoder of an earlier run.

Task: PATH/class/*.jpg, or PATH/train/class and PATH/val/class; a ResNet on 32x32 RGB. With
`--config.init.from=RUN` the encoder starts from that run; `--config.trains=head` keeps it frozen.

    python launch/train.py --config configs/folder.py:PATH --workdir runs/folder
    python launch/train.py --config configs/folder.py:PATH --workdir runs/folder_tuned \
        --config.init.from=runs/folder

Published weights of a deep net start configs/finetune.py, and give far more on a small folder
(configs/probe.py: 98.0 on the images below).

Expected: ants and bees (hymenoptera, 243 images to train on, 153 to test on), mean and standard
deviation of three seeds (--config.members.seed=0,1,2): 65.6 ± 1.0 from scratch; from a run on
CIFAR-10 images (800 to train on, itself 40.5 ± 3.8) 66.7 ± 0.7 frozen, 69.1 ± 3.6 fine-tuned: at
this size the source has little to give.
Time: 3 min for three seeds on one CPU core.
"""

from pathlib import Path

from tljax import config
from tljax.data.sources import test_split


def get_config(path: str = 'PATH'):
    c, dataset = config.default(), f'folder:{path}'
    c.name = 'folder'
    c.title = c.description = f'{Path(path).name}, from scratch'
    c.net = {'name': 'resnet', 'input': {'size': 32, 'channels': 3}}
    c.hparams.rate = 0.05
    c.hparams.weight_decay = 5e-4
    c.optimizer.schedule = 'cosine'
    c.optimizer.warmup = 30
    c.data.streams.source = config.stream(dataset, batch=64, augment='flip|shift:4')
    c.data.evaluate.test = config.held_out(dataset, split=test_split(dataset))
    c.steps = 300
    c.evaluate_every = 100
    return c
