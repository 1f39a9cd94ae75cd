"""Scratch, frozen features or fine-tuning? Handwritten digits 0-4 -> 5-9 with few labels.

Task: scikit-learn's digits (8x8, the UCI test writers), shipped with that library: no download.
Source: classes 0-4, all training images. Target: classes 5-9, 1 to 50 labels per class, tested on
all of the target's test split; five seeds, which draw the labels and the initial weights.

    python launch/train.py --config configs/quickstart.py --workdir runs/quickstart

Expected: accuracy at 5 labels per class, mean ± standard deviation: scratch 91.4 ± 1.1, frozen
90.6 ± 1.6, fine-tuned 93.5 ± 1.5. Fine-tuning helps from 5 labels per class on (+0.9 to +2.1
points), frozen features are on a par with scratch. Rates, widths and the source's augmentation were
chosen on a held out part of the target's training split with other seeds.
Time: 1 min on 2 CPU cores.
"""

from tljax import config

DIGITS = 'sklearn:digits'
OLD, NEW = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9)


def get_config():
    c = config.default()
    c.name = 'quickstart'
    c.title = 'Digits 0-4 → 5-9 with few labels'
    c.net = {
        'name': 'lenet',
        'widths': (32, 64),
        'kernel': 3,
        'dense': 0,
        'padding': 'SAME',
        'input': {'size': 8, 'channels': 1},
    }
    c.hparams.rate = 0.02
    c.optimizer.schedule = 'cosine'
    c.data.wrap = True
    c.sharding.devices = 1  # more would only wait for each other
    c.data.streams.source = config.stream(DIGITS, classes=NEW, batch=25)
    c.data.evaluate.test = config.held_out(DIGITS, classes=NEW)
    c.members.seed = (0, 1, 2, 3, 4)
    c.members.labels_per_class = (1, 2, 5, 10, 20, 50)
    c.steps = 150
    c.evaluate_every = 50
    return config.transfer_study(
        c,
        pretrain={
            'members': {'labels_per_class': ()},
            'steps': 600,
            'data': {
                'streams': {
                    'source': {
                        'classes': OLD,
                        'batch': 64,
                        # More variety in the source makes features that are less its own.
                        'augment': 'shift:2|rotate:30|erase:0.5',
                    }
                },
                'evaluate': {'test': {'classes': OLD}},
            },
        },
    )
