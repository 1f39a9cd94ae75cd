"""Zero-shot learning: classes never seen, recognised by what they are like.

Paper: Xian et al., 2018, "Zero-shot learning - a comprehensive evaluation of the good, the bad and
the ugly", arXiv:1707.00600, for the protocol: mean accuracy per class of unseen classes among
themselves (stream test), and among all classes (streams seen and unseen, with their harmonic mean).
Hyper-parameters never see a test class: closed forms choose strengths and calibration on random
splits of the seen classes; of the others a run METHOD_tuning, on the classes of the split 'train'
and tested on those of 'val', tells rate, margin, steps and calibration. The argument is
DATA,METHOD[,EMBEDDINGS]: DATA is sklearn:digits (2, 5 and 8 are never seen), awa:FOLDER[#FEATURES]
or xian:FOLDER; METHOD is a row of the table below or several joined by '+'; EMBEDDINGS say what
classes are like, one or more of tljax.data.semantics.KINDS joined by '+', or several such, joined
by '|', each of which is then an arm of every method.

    python launch/train.py --config configs/zero_shot.py:sklearn:digits,eszsl+sae \
        --workdir runs/zero_shot_digits
    python launch/train.py --config 'configs/zero_shot.py:awa:../shared/data/awa1#surf+rgsift,eszsl,awa:../shared/data/awa1|xian:../shared/data/awa2#wv|awa:../shared/data/awa1+xian:../shared/data/awa2#wv' \
        --workdir runs/zero_shot_awa1_embeddings
    python launch/train.py --config 'configs/zero_shot.py:awa:../shared/data/awa1#surf+rgsift,eszsl+sae+ale+sje+devise+dap+conse+dem+projection' \
        --workdir runs/zero_shot_awa1
    python launch/train.py --config configs/zero_shot.py:awa:../shared/data/awa1,eszsl_kernel \
        --workdir runs/zero_shot_awa1_kernel '--config.members.seed=(0,1,2)' \
        '--config.title=Zero-shot recognition, awa1: ESZSL on a kernel, which validation on seen classes rejects (22.7 against 26.0 without)'
    python launch/train.py --config 'configs/zero_shot.py:awa:../shared/data/awa1#surf,eszsl+sae' \
        --workdir runs/zero_shot_awa1_surf '--config.title=Zero-shot recognition, awa1: SURF alone'

Published with ResNet-101 features (xian:FOLDER), AwA2/CUB/SUN/aPY: DeViSE 59.7/52.0/56.5/39.8, ALE
62.5/54.9/58.1/39.7, SJE 61.9/53.9/53.7/32.9, ESZSL 58.6/53.9/54.5/38.3, SAE 54.1/33.3/40.3/8.3.

Expected: accuracy per class ± standard deviation of five seeds, which draw the closed forms' splits.
AwA1, at most 120 images a class, square roots of SURF and RGSIFT words (4,000 numbers), 40 classes
seen; of the 10 unseen ones among themselves (chance 10), then harmonic mean of the accuracies of
seen and unseen classes among all 50:

    ESZSL    attributes             36.5 ± 0.3   17.7 ± 2.7
             word vectors           31.4 ± 1.4   14.3 ± 1.9
             both                   36.4 ± 0.2   18.1 ± 1.6
             attributes, kernel     40.6 ± 0.3   22.7 ± 2.8
             attributes, SURF only  36.5 ± 0.0   16.9 ± 1.0
    SAE      attributes             33.3 ± 1.5   13.9 ± 1.2
             attributes, SURF only  30.8 ± 0.0   14.9 ± 0.7
    DeViSE                          31.9 ± 1.0   18.3 ± 0.6
    SJE                             31.0 ± 0.6   16.4 ± 1.0
    ALE                             30.2 ± 2.2   17.1 ± 0.8
    ConSE                           29.7 ± 1.5   18.4 ± 0.8
    DAP                             26.4 ± 1.2   12.8 ± 1.5
    DEM                             21.9 ± 2.6    6.1 ± 0.9
    projection                      15.8 ± 1.7    5.1 ± 0.7

The kernel (chi squared; also PHOG, three seeds) would not be chosen by validation: on classes held out
it reaches 22.7, ESZSL without it 26.0, and on SURF alone 24.0. With SURF alone all five seeds choose
the same strengths.
Digits from pixels (chance 33): DeViSE 45.6 ± 4.3, ESZSL 42.1 ± 1.3, DEM 41.3 ± 3.1, ALE 38.4 ± 5.8,
projection 37.6 ± 0.5, SJE 36.4 ± 5.5, SAE 36.1 ± 10.0, DAP 33.4 ± 5.2, ConSE 33.3 ± 0.0. Four
classes are too few to learn from and three too few to choose by: read them as a demonstration, not
as a comparison. The result depends on which digits are unseen: over six triples ESZSL reached 12 to
44, and that was known when these three became the default.
Time: on one CPU core, AwA1 12 min, SURF alone 4 min, its embeddings 9 min, its kernel 3 min a seed, digits 1 min.
"""  # noqa: E501

import itertools

from tljax import config
from tljax.types import unknown

DESCENT = {'steps': 600, 'trains': 'head', 'optimizer': {'name': 'adam'}}
RANKING = DESCENT | {'members': {'margin': (0.1, 1.0)}}
RATES = (1e-4, 1e-3, 1e-2)
METHODS: dict[str, dict] = {
    'ale': RANKING,
    'conse': DESCENT,
    'dap': DESCENT,
    'dem': DESCENT | {'options': {'width': 256}},
    'devise': RANKING,
    'eszsl': {},
    'eszsl_kernel': {
        'method': 'eszsl',
        'net': {'name': 'identity'},  # its distance is of histograms, not of their roots
        'options': {'kernel': 'chi_squared'},
    },
    'projection': DESCENT,
    'sae': {},
    'sje': RANKING,
}
UNSEEN_DIGITS = (2, 5, 8)
SEEN_DIGITS = (0, 1, 3, 4, 6, 7, 9)
VALIDATION_DIGITS = (3, 6, 9)  # of those seen: unseen while hyper-parameters are tuned
# Histograms go by the square roots of their entries, which makes dot products Hellinger's kernel.
POWER = {'sklearn': 1.0, 'awa': 0.5, 'xian': 1.0}
# What classes are like, where the argument does not say.
EMBEDDINGS = {'sklearn': 'csv:configs/seven_segment.csv', 'awa': 'awa:{}', 'xian': 'xian:{}'}


def get_config(argument: str = 'sklearn:digits,eszsl+sae'):
    """`argument` is DATA,METHOD[+METHOD...][,EMBEDDINGS[|EMBEDDINGS...]]."""
    fields = argument.split(',')
    if len(fields) not in (2, 3) or not all(fields):
        raise ValueError(
            f'{argument!r} is not DATA,METHOD or DATA,METHOD,EMBEDDINGS, such as awa:FOLDER,eszsl'
        )
    data, methods = fields[0], fields[1].split('+')
    kind, _, place = data.partition(':')
    if kind not in EMBEDDINGS:
        raise unknown('kind of data', kind, EMBEDDINGS)
    embeddings = fields[2] if len(fields) == 3 else EMBEDDINGS[kind].format(place.split('#')[0])
    c = config.default()
    c.name = 'zero_shot'
    title = f'Zero-shot recognition, {config.label(data.split("#")[0])}'
    c.description = f'{title}: {", ".join(methods)}'
    c.title = c.description if len(methods) == 1 else title
    c.net = {'name': 'identity', 'power': POWER[kind]}
    alternatives = [tuple(one.split('+')) for one in embeddings.split('|')]
    c.data.embeddings = alternatives[0]
    c.data.wrap = True
    train, seen, unseen = parts(kind, 'trainval', 'test_seen', 'test_unseen')
    c.data.streams.source = config.stream(data, **train, batch=64)
    c.data.evaluate.test = config.held_out(data, **unseen, among='unseen')
    c.data.evaluate.seen = config.held_out(data, **seen)
    c.data.evaluate.unseen = config.held_out(data, **unseen)
    if kind == 'sklearn':
        c.data.size, c.data.channels = 8, 1
    c.members.seed = (0, 1, 2, 3, 4)
    c.steps, arms = 0, {}
    kinds = list(dict.fromkeys(itertools.chain(*alternatives)))
    words = dict(zip(kinds, config.labels(kinds), strict=True))
    for method in methods:
        if method not in METHODS:
            raise unknown('method', method, METHODS)
        for like in alternatives:
            name = '_'.join([method, *map(words.get, like)] if alternatives[1:] else [method])
            arms[name] = {'method': method, 'data': {'embeddings': like}} | METHODS[method]
    for name, arm in arms.items():
        c.runs[name] = arm
        if arm.get('steps'):
            c.runs[f'{name}_tuning'] = tuning(kind, arm)
            tuned = {'by': f'{name}_tuning', 'metric': 'per_class_accuracy'}
            c.runs[name] = arm | {'members': {}, 'tuned': tuned}
    c.compare.update(baseline=next(iter(arms)), arms=tuple(arms), metric='per_class_accuracy')
    c.compare.also = ('seen', 'unseen', 'unseen:harmonic_mean')  # among all classes
    return c


def parts(kind: str, train: str, seen: str, unseen: str) -> list[dict]:
    """What to train on, and the two streams of the protocol, as keys of a stream."""
    if kind != 'sklearn':
        return [{'split': split} for split in (train, seen, unseen)]
    if unseen == 'test_unseen':
        known, new, splits = SEEN_DIGITS, UNSEEN_DIGITS, ('train', 'test', 'test')
    else:
        known = tuple(digit for digit in SEEN_DIGITS if digit not in VALIDATION_DIGITS)
        new, splits = VALIDATION_DIGITS, ('train[:80%]', 'train[80%:]', 'train')
    only = (known, known, new)
    return [{'split': one, 'only': digits} for one, digits in zip(splits, only, strict=True)]


def tuning(kind: str, arm: dict) -> dict:
    """The run that tells an arm's rate, margin, steps and calibration, on classes that are seen."""
    train, seen, unseen = parts(kind, 'val_train', 'val_seen', 'val_unseen')
    data = {
        **arm['data'],
        'streams': {'source': train},
        'evaluate': {'test': unseen, 'seen': seen, 'unseen': unseen},
    }
    members = {'seed': (0,), 'rate': RATES, **arm.get('members', {})}
    return arm | {'data': data, 'members': members, 'evaluate_every': arm['steps'] // 4}
