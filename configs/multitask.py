"""Several tasks with one network: which help each other, and how their losses are balanced.

Paper: Sener and Koltun, 2018, "Multi-task learning as multi-objective optimization",
arXiv:1810.04650, section 5.1, for Multi-MNIST (LeNet, two heads, batches of 256); each balancer's
own in `tljax/losses/multitask.py` and `surgery.py`. The argument is DATA,BALANCER and further
fields; BALANCER is a row of the tables there, 'mgda_ub', or several joined by '+'. All are compared
with `equal`, the sum of the losses, and task by task with `single_TASK`: same network, same steps,
one task.

    python launch/train.py --config configs/multitask.py:sklearn:digits,uncertainty+mgda_ub+pcgrad \
        --workdir runs/digits
    python launch/train.py --config configs/multitask.py:tfds:multi_mnist/mnist,mgda_ub+uncertainty \
        --workdir runs/multi_mnist
    python launch/train.py \
        --config configs/multitask.py:tfds:multi_mnist/fashion_and_mnist,mgda_ub+uncertainty \
        --workdir runs/multi_fashion_and_mnist
    python launch/train.py \
        --config configs/multitask.py:tfds:mnist+tfds:fashion_mnist,uncertainty+pcgrad \
        --workdir runs/mnist_and_fashion_mnist
    python launch/train.py \
        --config configs/multitask.py:tfds:plant_village,uncertainty,tasks=host+disease \
        --workdir runs/plant_village
    python launch/train.py \
        --config configs/multitask.py:sklearn:digits,equal,width=12+25+50+200 \
        --workdir runs/digits_capacity
    python launch/train.py \
        --config configs/multitask.py:sklearn:digits,fixed,weights=1+1+1+0.3 \
        --workdir runs/digits_fixed
    python launch/train.py \
        --config configs/multitask.py:sklearn:digits,equal,share=label:10+100+1000 \
        --workdir runs/digits_balance
    python launch/train.py \
        --config configs/multitask.py:sklearn:digits,equal,sharing=cross_stitch+mmoe+mtan \
        --workdir runs/digits_soft

The commands of the README's tables name all balancers that stand there. Of data sets joined by '+'
each is a task, its classes, with images of its own: the network sees a batch of each at a time, and
what is compared over all arms is the accuracy on the first one; each task is judged on its own.

PlantVillage is trained on 80 per cent of its one split and tested on the rest; of another set that
has no split 'test', `--config.data.streams.source.split` and `--config.data.evaluate.test.split`
cut one, as 'train[:80%]' and 'train[80%:]'.

Further fields: tasks=A+B names label columns; weights=V+W are the weights of 'fixed', in the order
of the tasks; width=P+Q adds runs whose shared layers have P and Q
per cent of the width, for the capacity study (how large must the net be for all tasks, beside whole
nets of one?); share=TASK:N+M adds runs, with twins of their own, that keep one in N or M of a
task's training labels, for the study of balance; branch=ENDPOINT gives each task the layers behind
it; sharing=A+B adds a run for each of 'cross_stitch', 'mmoe' and 'mtan' (`tljax/nets/sharing.py`),
which share softly what the others share whole, and sum the losses as `equal` does; 'affinity' shows
how tasks bear on each other; 'full' is, for Multi-MNIST, as many epochs as in the paper, 100, but
with the optimizer, weight decay and dropout of this file, for other data 6,000 steps. Without it,
Multi-MNIST is trained for 60 epochs and Multi-Fashion-and-MNIST for 30.

What a balancer may be told is set by `--config.runs.NAME.options.balance.KEY`, such as
`--config.runs.cagrad.options.balance.c=0.5`.

Runs are compared by the mean accuracy of the tasks, or by the sum of their losses where all are
regressions, and by any score of a task with `--config.compare.metric=TASK_rmse`.

Expected: digits, mean ± standard deviation of three seeds, mean accuracy of the tasks, then the
error of `ink`: equal 98.1 ± 0.4, 0.180; dwa 98.1 ± 0.4, 0.179; pcgrad 98.2 ± 0.3, 0.180; gradnorm
98.0 ± 0.4, 0.194; cagrad 97.8 ± 0.3, 0.213; uncertainty 97.8 ± 1.3, 0.253; aligned 97.5 ± 0.3,
0.260; mgda 97.0 ± 0.2, 0.313; imtl 96.8 ± 0.4, 0.246; mgda_ub 96.6 ± 0.3, 0.282; nash, with
--config.runs.nash.optimizer.clip=1.0 as its authors clip (without, it diverges), 96.6 ± 0.3, 0.235;
random 96.3 ± 0.5, 0.341; famo 95.4 ± 0.4, 0.209; cross_stitch 97.8 ± 0.3, 0.141; mmoe 97.2 ± 0.1,
0.083; mtan 98.4 ± 0.4, 0.173, these with four to six times the parameters; each task alone 97.9,
0.152. Cosines of the tasks' gradients under equal, which 'affinity' tells: label with loops 0.36,
with parity 0.22, parity with loops 0.19, ink with any 0.01; a step for ink alone raises the other
losses by 0.2 per cent.
Multi-MNIST (left / right), 'full', three seeds (published, 100 epochs too): single 97.8 ± 0.1 / 96.6
± 0.0 (97.23 / 95.90), equal 97.2 ± 0.1 / 96.2 ± 0.1 (96.46 / 94.99), mgda_ub 97.30 ± 0.12 / 96.2 ±
0.0 (97.26 / 95.90), uncertainty 97.3 ± 0.0 / 95.8 ± 0.3 (96.47 / 95.29), gradnorm 97.2 ± 0.2 / 96.2
± 0.2 (96.27 / 94.84): all are reached. After the 60 epochs without 'full', single 97.8 / 96.7, equal
97.2 / 95.9, uncertainty 97.2 / 95.6, gradnorm 97.2 / 96.1, pcgrad 97.1 / 95.9 and mgda_ub 97.21 ±
0.08 / 96.2, whose left digit alone is short by 0.05.
Chosen on 10,000 training images held out, three seeds of mgda_ub: weight decay (after 30 epochs 96.7
/ 95.2 without, 97.0 / 95.7 with 5e-4, 97.0 / 95.5 with 1e-3), its gradients divided by the loss (not,
97.0 / 95.7; by loss and length, 96.7 / 95.9; by the loss and after 60 epochs 97.0 / 96.2), and before
those dropout, 0.25 where the published code has 0.5.
Multi-Fashion-and-MNIST, 30 epochs: single 88.7 ± 0.1 / 96.1 ± 0.1, equal 85.4 ± 0.4 / 94.9 ± 0.3,
mgda_ub 87.2 ± 0.3 / 94.1 ± 0.2, uncertainty 84.2 ± 0.3 / 95.4 ± 0.1, pcgrad 85.5 ± 0.1 / 94.8 ±
0.2, gradnorm 86.7 ± 0.3 / 94.1 ± 0.2, cagrad 86.6 ± 0.3 / 94.6 ± 0.1.
Labels of one task made few ('share'), Multi-MNIST, 10 epochs: with 1 in 10 of the left digit's it has
53.1 ± 12.7 (alone 34.2), the right one 92.6 (95.0 beside all labels). With 1 in 100, two or three in
a batch, whose mean is the loss, both fall to chance, and so does the left one alone: at this rate,
0.1, such losses are too noisy for the net; lower it, or set optimizer.clip.
Time: on one CPU core 7 min for the digits, 134 for Multi-MNIST at full length, 56 for
Multi-Fashion-and-MNIST.
"""  # noqa: E501

import re
from typing import NamedTuple

from tljax import config
from tljax.data.sources import OPEN, test_split
from tljax.losses.multitask import BALANCERS
from tljax.losses.surgery import SOLVERS
from tljax.nets import SHARINGS
from tljax.types import keywords, unknown

STEPS, FULL = 600, 6000
# Of sets that nothing more is known of: an image net, and the tasks of class names 'Apple___scab'.
OTHER: dict = {
    'tasks': ('host', 'disease'),
    'net': {'name': 'resnet', 'widths': (16, 32, 64), 'input': {'size': 32}},
    'batch': 128,
    'splits': ('train', ''),  # '': what `test_split` finds
}
# Two images over each other; LeNet and batches of Sener and Koltun.
PAIRS: dict = {
    'tasks': ('left', 'right'),
    'net': {
        'name': 'lenet',
        'widths': (10, 20),
        'dense': 50,
        'dropout': 0.25,
        'input': {'size': 28, 'channels': 1},
    },
    'head': {'name': 'mlp', 'widths': (50,), 'dropout': 0.25},
    'batch': 256,
    'steps': 7050,
    'full': 23_500,
    'rate': 0.1,
    'weight_decay': 5e-4,
}
DATA: dict[str, dict] = {
    'sklearn:digits': {
        'tasks': ('label', 'parity', 'loops', 'ink'),
        'net': {
            'name': 'lenet',
            'widths': (16, 32),
            'kernel': 3,
            'padding': 'SAME',
            'dense': 64,
            'input': {'size': 8, 'channels': 1},
        },
        'batch': 64,
        'rate': 0.01,
    },
    # As the pairs of fashion, for longer, and with what was chosen on training images held out.
    'tfds:multi_mnist/mnist': {
        **PAIRS,
        'steps': 14_100,
        'balance': {'mgda_ub': {'normalize': 'loss'}},
    },
    'tfds:multi_mnist': PAIRS,
    'tfds:mnist+tfds:fashion_mnist': {
        'net': {
            'name': 'lenet',
            'widths': (20, 50),
            'dense': 500,
            'input': {'size': 28, 'channels': 1},
        },
        'batch': 64,
        'steps': 1000,
    },
    # TFDS has one split of it, in a shuffled order.
    'tfds:plant_village': {**OTHER, 'splits': ('train[:80%]', 'train[80%:]')},
}
FIELDS = ('tasks', 'weights', 'width', 'share', 'branch', 'sharing')
SWITCHES = ('affinity', 'full')


def get_config(argument: str = 'sklearn:digits,uncertainty'):
    """`argument` is DATA,BALANCER and any of `FIELDS`."""
    data, balancers, fields = parsed(argument)
    known = next((one for name, one in DATA.items() if data.startswith(name)), OTHER)
    parts = streams_of(data, fields, known)
    tasks = tuple(task for part in parts for task in part.tasks)
    c = config.default()
    c.name = 'multitask'
    c.title = f'{len(tasks)} tasks of {" and ".join(part.name for part in parts)}'
    c.title += ', by width' * ('width' in fields) + ', by share of labels' * ('share' in fields)
    c.description = f'{", ".join(tasks)} of {data}, learnt together and alone'
    c.method = 'multitask'
    c.net = known['net']
    c.head = known.get('head', {'name': 'linear'})
    c.hparams.rate = known.get('rate', 0.05)
    c.hparams.weight_decay = known.get('weight_decay', 0.0)
    c.optimizer.schedule = 'cosine'
    c.data.streams.source, c.data.evaluate.test = parts[0].train, parts[0].test
    c.members.seed = (0, 1, 2)
    c.steps = known.get('full', FULL) if 'full' in fields else known.get('steps', STEPS)
    c.options = {'branch': fields['branch']} if 'branch' in fields else {}
    twins: dict = {task: f'single_{task}' for task in tasks}
    for part in parts:
        c.runs.update({twins[task]: part.only(task) for task in part.tasks})
    arms = joint(balancers, fields, dict(c.options), len(tasks), known.get('balance', {}))
    widths = fields.get('width', '')
    for percent in numbers(widths, f'width={widths}'):
        arms[f'width_{percent}'] = {'net': wider(known['net'], percent / 100)}
    for task, one_in in shares_of(fields, tasks):
        arm, own = f'{task}_1_in_{one_in}', next(part for part in parts if task in part.tasks)
        arms[arm] = {'data': {'streams': {own.stream: {'shares': {task: 1 / one_in}}}}}
        twins[arm] = {task: f'single_{arm}'}
        c.runs[f'single_{arm}'] = own.only(task, shares={task: 1 / one_in})
    for arm, changes in arms.items():
        c.runs[arm] = {'data': {'streams': {}, 'evaluate': {}}} if parts[1:] else {}
        for part in parts[1:]:
            c.runs[arm].data.streams[part.stream] = part.train
            c.runs[arm].data.evaluate[f'test_{part.name}'] = part.test
        c.runs[arm].update(changes)
    c.compare.update(baseline='equal', arms=tuple(arms), twins=twins)
    return c


class Part(NamedTuple):
    """One set of the data, and what is learnt of it."""

    name: str
    stream: str  # its name in runs that learn all tasks; that of the first is in all runs
    tasks: tuple[str, ...]
    train: dict
    test: dict

    def only(self, task: str, **source) -> dict:
        """What is changed in the run that learns one task."""
        column = next(one for one in self.train['tasks'] if one.partition('=')[0] == task)
        # Of the set that all runs have, flags may cut other splits.
        keys = () if self.stream == 'source' else ('dataset', 'split')
        train, test = (
            {key: one[key] for key in keys} | {'tasks': (column,)}
            for one in (self.train, self.test)
        )
        return {'data': {'streams': {'source': train | source}, 'evaluate': {'test': test}}}


def streams_of(data: str, fields: dict[str, str], known: dict) -> list[Part]:
    """The sets that `data` joins; of several, the classes of each are a task of its name.

    Raises:
      ValueError: tasks= names columns, though there are several sets.
    """
    sets = re.split(rf'\+(?=(?:{"|".join(OPEN)}):)', data)
    names = config.labels(sets) if len(sets) > 1 else [data.partition(':')[2]]
    if len(sets) > 1 and 'tasks' in fields:
        raise ValueError(
            f'tasks={fields["tasks"]} names columns of one set; of several, joined by +, the '
            'classes of each are a task'
        )
    columns = tuple(listed(fields, 'tasks')) or known.get('tasks', OTHER['tasks'])
    split, held = known.get('splits', OTHER['splits'])
    parts = []
    for name, dataset in zip(names, sets, strict=True):
        tasks = (name,) if len(sets) > 1 else columns
        of = {'dataset': dataset, 'tasks': (f'{name}=label',) if len(sets) > 1 else columns}
        train = config.stream(split=split, batch=known['batch'], **of)
        test = config.held_out(split=held or test_split(dataset), **of)
        parts.append(Part(name, name if parts else 'source', tasks, train, test))
    return parts


def joint(
    balancers: tuple[str, ...], fields: dict[str, str], shared: dict, tasks: int, told: dict
) -> dict[str, dict]:
    """The runs that learn all tasks, by balancer and by kind of sharing.

    Args:
      shared: options of all of them.
      tasks: how many.
      told: balancer -> what the data's row has it told.

    Raises:
      ValueError: there is no such balancer or sharing, or weights for none.
    """
    arms = {}
    for name in ('equal', *balancers):
        at = {'balancer': 'mgda', 'at': 'features'} if name == 'mgda_ub' else {'balancer': name}
        if balance := balance_of(at['balancer'], fields, tasks) | told.get(name, {}):
            at['balance'] = balance
        also = {'affinity': True} if 'affinity' in fields and name == 'equal' else {}
        arms[name] = {'options': {**shared, **at, **also}}
    if 'weights' in fields and 'fixed' not in arms:
        raise ValueError('weights= are those of the balancer fixed, which is not named')
    for name in listed(fields, 'sharing'):
        if name not in SHARINGS:
            raise unknown('sharing', name, SHARINGS)
        arms[name] = {'options': {'sharing': name}}
    return arms


def balance_of(balancer: str, fields: dict[str, str], tasks: int) -> dict:
    """All that a balancer may be told, for flags to change; the weights, if the argument has them.

    Raises:
      ValueError: there is no such balancer, or not a number for every task.
    """
    rows = {**BALANCERS, **SOLVERS}
    if balancer not in rows:
        raise unknown('balancer', balancer, [*rows, 'mgda_ub'])
    found = keywords(rows[balancer])
    if balancer == 'fixed' and 'weights' in fields:
        try:
            found['weights'] = tuple(map(float, listed(fields, 'weights')))
        except ValueError:
            found['weights'] = ()
        if len(found['weights']) != tasks:
            raise ValueError(
                f'weights={fields["weights"]} are not {tasks} numbers joined by +, one a task'
            )
    return found


def listed(fields: dict[str, str], name: str) -> list[str]:
    """What a field names, joined by '+'."""
    return fields[name].split('+') if name in fields else []


def numbers(text: str, field: str) -> list[int]:
    """The whole numbers over 0 in a text, joined by '+'; none in an empty one.

    Raises:
      ValueError: one is something else; the field is what the message calls it.
    """
    found = text.split('+') if text else []
    if wrong := [one for one in found if not one.isdecimal() or int(one) < 1]:
        raise ValueError(f'{field}: {wrong[0]!r} is not a whole number over 0')
    return [int(one) for one in found]


def shares_of(fields: dict[str, str], tasks: tuple[str, ...]) -> list[tuple[str, int]]:
    """The task whose labels are made few, with each N of 'share=TASK:N+M'.

    Raises:
      ValueError: the field has another form, or there is no such task.
    """
    if 'share' not in fields:
        return []
    task, _, counts = fields['share'].partition(':')
    if not counts:
        raise ValueError(f'share={fields["share"]} is not TASK:N+M, such as {tasks[0]}:10+100')
    if task not in tasks:
        raise unknown('task in share=', task, tasks)
    return [(task, one_in) for one_in in numbers(counts, f'share={fields["share"]}')]


def parsed(argument: str) -> tuple[str, tuple[str, ...], dict[str, str]]:
    """Data, balancers but 'equal', and the further fields."""
    data, _, rest = argument.partition(',')
    balancers, *further = rest.split(',')
    fields = dict(field.partition('=')[::2] for field in further)
    known = {field.partition('=')[0] for field in further} <= {*FIELDS, *SWITCHES}
    told = all((value == '') == (name in SWITCHES) for name, value in fields.items())
    if not data or not balancers or not known or not told or len(fields) < len(further):
        raise ValueError(
            f'{argument!r} is not DATA,BALANCER or DATA,BALANCER,FIELD..., such as '
            'sklearn:digits,uncertainty+pcgrad,width=50+200; fields are '
            f'{", ".join(f"{name}=..." for name in FIELDS)} and, alone, {", ".join(SWITCHES)}; '
            'each once'
        )
    return data, tuple(name for name in balancers.split('+') if name != 'equal'), fields


def wider(net: dict, factor: float) -> dict:
    """A net whose layers are `factor` times as wide, rounded, of one channel at least.

    Raises:
      ValueError: the net's widths are not written out, so that there is nothing to scale.
    """
    scaled = lambda width: max(round(width * factor), 1)
    found = {key: net[key] for key in ('widths', 'dense') if key in net}
    if not found:
        raise ValueError(f'width= scales widths and dense of a net, but {net} tells neither')
    sizes = {
        k: scaled(v) if isinstance(v, int) else tuple(map(scaled, v)) for k, v in found.items()
    }
    return net | sizes
