"""Recognising classes never trained on from one example of each.

Paper: of each method in `tljax.methods.embedding`; Omniglot as in Lake et al., 2015, Science 350,
Koch et al., 2015, and Vinyals et al., 2016, arXiv:1606.04080. Source: the classes of a background
set. Target: other classes, of which the encoder sees one or five examples each; no class is in
both. The argument is DATA,METHOD: METHOD is one of the table below or 'frozen', the twin that every
other is compared with: a classifier of the background classes, whose features are kept as they are.
Pairs are verified twice. Lambda, below which predict.py calls two images the same, is chosen on
pairs of a random half of the target's classes or, of Omniglot, alphabets (Koch et al. have ten for
validation and ten for testing); pairs of the other half are tested by it: validated accuracy.
Pairs of all target classes, each half by lambda of the other: accuracy, which uses all of them. No
class is kept from training for this. DATA is

- sklearn:digits: 0 to 4, then 5 to 9;
- omniglot: the 30 background alphabets, then within the 20 evaluation alphabets, over 400 trials
  and on the 20 official runs, and verification of pairs;
- omniglot_between: 1,200 characters and their turns by 90 degrees as classes of their own, then the
  other 423 characters, 5- and 20-way, unturned;
- omniglot_koch: as omniglot, with the images of 105 pixels, the net and the pairs of Koch et al.;
- folder:PATH: one sub-folder for each identity or class, of which a seeded fifth is kept for the
  evaluation; episodes have as many classes and queries as there are images for. In the same way
  tfds:lfw and other sets with many classes, prepared in TFDS's own folder or that of TFDS_DATA_DIR.

    python launch/train.py --config configs/one_shot.py:sklearn:digits,prototypical \
        --workdir runs/one_shot
    python launch/prepare.py omniglot_characters/28 --manual_dir DIR
    python launch/train.py --config configs/one_shot.py:omniglot,siamese --workdir runs/siamese
    python launch/train.py --config configs/one_shot.py:omniglot_between,prototypical \
        --workdir runs/prototypical
    python launch/prepare.py omniglot_characters/105 --manual_dir DIR
    python launch/train.py --config configs/one_shot.py:omniglot_koch,siamese,full \
        --workdir runs/koch

With a third field 'full' the schedule is as long as the papers', for an accelerator: 20,000
episodes (Snell et al., 2017), or 90,000 steps of pairs; omniglot,siamese is as long without.

Expected: digits 5 to 9, mean ± standard deviation of five seeds: 5-way 1-shot prototypical
65.8 ± 1.6, frozen 65.3 ± 3.2; 5-shot 86.2 ± 1.5 and 86.7 ± 2.5; verification of pairs 75.0 ± 0.7
and 73.2 ± 2.0, validated 74.6 ± 1.6 and 73.7 ± 2.8 (lambda from two classes, tried on three): on a
par.
Omniglot, images of 28 pixels. Between alphabets, three seeds, 5-way 1-shot, 5-shot, 20-way 1-shot,
5-shot: prototypical 98.9 ± 0.0, 99.7 ± 0.0, 96.2 ± 0.0, 99.0 ± 0.0 (published, on Vinyals' split,
98.8, 99.7, 96.0, 98.9), pairs 97.6 ± 0.1, 97.5 ± 0.0 validated, equal error rate 2.4 ± 0.1; frozen
98.2 ± 0.1, 99.6 ± 0.0, 94.2 ± 0.1, 98.8 ± 0.0, 95.6 ± 0.2, 94.7 ± 0.4, 4.4 ± 0.3: most of it is
what any classifier of so many characters learns.
Within alphabets, three seeds, 20-way 1-shot: Siamese 92.7 ± 1.3 on the 20 official runs, which are
the 400 trials of Koch et al. (two runs of each of ten alphabets): 7.3 % error (published, of 105
pixels, 92.0), pairs 95.9 ± 0.1, validated 96.0 ± 0.2 (93.4); frozen 90.3 ± 0.9, 94.2 ± 0.3 and 94.6
± 0.3. Over 400 trials that are drawn from all 20 evaluation alphabets and all 20 drawers, which are
harder, 83.0 ± 1.4 and 79.1 ± 1.3, a difference that three seeds cannot tell from none. The last
step is reported; after 10,000 and 20,000 of the 30,000 the runs were at 89.3 and 92.0, and it is by
these runs that the length of the schedule was decided. It has seen 2.4 million images; pairs at
'full' see 23 million. One seed of 70,000 steps had 92.7, too, pairs 96.6 and drawn trials 82.2.
Without the fourth convolution and pool ('--config.net.widths=(64,64,64)'
--config.runs.siamese.steps=24000, three seeds, 58 min on one core) 90.4 ± 1.2, 94.9 ± 0.2 and 77.8
± 1.7: faster at first, then behind.
Time: on one CPU core 6 min for digits, of three seeds 3 h between alphabets, 2 h and a half within.
"""

import numpy as np

from tljax import config
from tljax.data import episodes, sources
from tljax.types import unknown

# How the batches of each method are drawn.
DRAWS = {
    'infonce': 'episode:{way}x1x1',
    'matching': 'episode:{way}x1x5',
    'prototypical': 'episode:{way}x1x5',
    'siamese': 'episode:{way}x1x3',
    'siamese_contrastive': 'pairs:64',
    'supervised_contrastive': 'episode:{way}x2x2',
    'triplet': 'episode:{way}x2x2',
}
KOCH = 'pairs:128'  # of siamese, as published
FROZEN = 'frozen'
OMNIGLOT, LARGE = 'tfds:omniglot_characters/28', 'tfds:omniglot_characters/105'
STEPS, FULL = 1000, {'episode': 20_000, 'pairs': 90_000}
# Long ones, as long as they are worth on a CPU; and of the twin, whose 64 images a step are fewer.
SCHEDULES = {
    'omniglot': {'steps': 30_000, 'evaluate_every': 10_000, 'save_every': 2500},
    'omniglot_between': {'steps': 7000, 'evaluate_every': 1000, 'save_every': 500},
}
LONG = {'steps': 10_000, 'evaluate_every': 5000, 'save_every': 2500}


def get_config(argument: str = 'sklearn:digits,prototypical'):
    """`argument` is DATA,METHOD or DATA,METHOD,full."""
    data, method, full = parsed(argument)
    c = config.default()
    c.title = f'One-shot recognition: {data}'
    c.description = f'Classes of {data} that no step has seen, by {method}'
    c.name = f'one_shot_{config.label(data)}'
    c.optimizer.update(name='adam', schedule='cosine')
    c.hparams.rate, c.hparams.weight_decay = 1e-3, 0.0
    c.members.seed = (0, 1, 2, 3, 4)
    way, kinds, *counts = SETS.get(data, identities)(c, data)
    c.runs.frozen = LONG if data.startswith('omniglot') else {}
    others = [name for name in c.data.evaluate if name != 'test']
    if data in SETS:  # of a few identities there are no halves
        others += [f'pairs:{one}' for one in ('validated_accuracy', 'auc', 'eer', 'tar_at_far_1')]
    c.compare.update(baseline=FROZEN, arms=(FROZEN,), also=tuple(others))
    if method != FROZEN:
        draw = KOCH if (data, method) == ('omniglot_koch', 'siamese') else DRAWS[method]
        draw = fitting(draw.format(way=way), *counts) + kinds
        changes = {'method': method, 'data': {'streams': {'source': {'draw': draw}}}}
        changes |= SCHEDULES.get(data, {})
        if full:  # longer, whatever is worth its time on a CPU
            changes['steps'] = max(changes.get('steps', 0), FULL[draw.partition(':')[0]])
        c.runs[method] = changes
        c.compare.arms = (FROZEN, method)
    return c


def parsed(argument: str) -> tuple[str, str, bool]:
    """Data, method, and whether the schedule is the papers'."""
    fields = argument.split(',')
    if len(fields) not in (2, 3) or fields[2:] not in ([], ['full']) or not all(fields):
        raise ValueError(f'{argument!r} is not DATA,METHOD or DATA,METHOD,full')
    data, method = fields[:2]
    if method not in DRAWS and method != FROZEN:
        raise unknown('method', method, (*DRAWS, FROZEN))
    if data not in SETS and not data.startswith(('folder:', 'tfds:')):
        raise unknown('data', data, (*SETS, 'folder:PATH', 'tfds:NAME'))
    return data, method, bool(fields[2:])


def fitting(draw: str, counts: np.ndarray | None = None) -> str:
    """The draw, with classes and queries as few as numbers of images [C] allow.

    The way is at most the number of classes with a query beside their supports; there are as many
    queries as leave that many classes.
    """
    wanted = episodes.parse(draw)
    if counts is None or isinstance(wanted, episodes.Pairs):
        return draw
    fit = lambda query: int((counts >= wanted.shot + query).sum())
    way = min(wanted.way, fit(1))
    if way < 2:
        raise ValueError(
            f'{way} of {len(counts)} classes to train on have {wanted.shot + 1} images, as '
            f'draw={draw!r} needs at least; give two or more classes as many'
        )
    query = max(q for q in range(1, wanted.query + 1) if fit(q) >= way)
    return f'episode:{way}x{wanted.shot}x{query}'


def digits(c, data: str) -> tuple[int, str]:
    """scikit-learn's digits: classes an episode, and what else stands in a draw."""
    c.net = {'name': 'lenet', 'widths': (32, 64), 'kernel': 3, 'dense': 0, 'padding': 'SAME'}
    c.net.update(norm=True, input={'size': 8, 'channels': 1})
    c.data.streams.source = config.stream(data, classes=(0, 1, 2, 3, 4), augment='shift:1')
    new = {'dataset': data, 'classes': (5, 6, 7, 8, 9)}
    c.data.evaluate.test = config.held_out(**new, protocol='episode:5x1x15:1000')
    c.data.evaluate.five = config.held_out(**new, protocol='episode:5x5x15:1000')
    c.data.evaluate.pairs = config.held_out(**new, protocol='pairs:2000')
    c.steps = 300
    return 5, ''


def within(c, data: str) -> tuple[int, str]:
    """Omniglot's background alphabets, then within those of its evaluation set."""
    del data
    c.net = {'name': 'conv4'}
    augment = 'affine:10,0.3,0.2,2'  # as Koch et al., section 3.3
    c.data.streams.source = config.stream(OMNIGLOT, split='background', augment=augment)
    new = {'dataset': OMNIGLOT, 'split': 'evaluation'}
    c.data.evaluate.test = config.held_out(**new, protocol='within:20x1x1:20')
    c.data.evaluate.runs = config.held_out(OMNIGLOT, split='runs', protocol='runs:20')
    c.data.evaluate.pairs = config.held_out(**new, protocol='pairs:10000')
    c.members.seed = (0, 1, 2)
    c.steps = STEPS
    return 20, ',within,rotated'


def koch(c, data: str) -> tuple[int, str]:
    """The same with the images and the net of Koch et al., for an accelerator."""
    way, kinds = within(c, data)
    c.net = {'name': 'koch'}
    for stream in (c.data.streams.source, *c.data.evaluate.values()):
        stream.dataset = LARGE
    return way, kinds


def between(c, data: str) -> tuple[int, str]:
    """Omniglot's characters, whatever their alphabet."""
    del data
    c.net = {'name': 'conv4'}
    c.data.streams.source = config.stream(OMNIGLOT, augment='shift:2|rotate:10')
    for name, form in (('test', '5x1'), ('five', '5x5'), ('way20', '20x1'), ('way20_five', '20x5')):
        one = config.held_out(OMNIGLOT, protocol=f'episode:{form}x15:1000')
        c.data.evaluate[name] = one
    c.data.evaluate.pairs = config.held_out(OMNIGLOT, protocol='pairs:10000')
    c.members.seed = (0, 1, 2)
    c.steps = STEPS
    return 60, ',rotated'  # of Snell et al. 2017


def identities(c, data: str) -> tuple[int, str, np.ndarray]:
    """Any set with many classes, such as photos of people: a fifth of them is kept apart.

    Returns also how many images each of the others has.
    """
    c.net = {'name': 'conv4', 'input': {'size': 64, 'channels': 3}}
    split = 'all' if data.startswith('folder:') else 'train'
    source = sources.load(data, split)
    names, count = source.classes, np.bincount(source.labels, minlength=len(source.classes))
    if len(names) < 4:
        raise ValueError(f'{data}: has {len(names)} classes; expected 4 or more')
    order = np.random.RandomState(0).permutation(len(names))
    cut = max(2, len(names) // 5)
    new, old = (tuple(sorted(names[i] for i in part)) for part in (order[:cut], order[cut:]))
    way = min(5, int((count[order[:cut]] > 1).sum()))
    if way < 2:
        raise ValueError(f'{data}: too few classes have two images: {way} of {cut} to test on')
    c.data.streams.source = config.stream(data, split=split, classes=old, augment='flip|shift:4')
    held = {'dataset': data, 'split': split, 'classes': new}
    c.data.evaluate.test = config.held_out(**held, protocol=f'episode:{way}x1x1:1000')
    c.data.evaluate.pairs = config.held_out(**held, protocol='pairs:2000')
    c.data.wrap = True
    c.steps = STEPS
    return 20, '', count[order[cut:]]


SETS = {
    'sklearn:digits': digits,
    'omniglot': within,
    'omniglot_between': between,
    'omniglot_koch': koch,
}
