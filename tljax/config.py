"""The config of a run, with every key, its default and what it means."""

import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from tljax.types import unknown


def default() -> ConfigDict:
    """A config that a file in `configs/` fills in; unknown keys fail."""
    c = ConfigDict()
    c.name = 'run'
    c.title = ''
    c.description = ''
    c.seed = 0
    c.lifting = 'auto'  # vmap, map, or auto: map on a CPU, else vmap
    c.loop = True  # many steps a compiled call; False suits nets that XLA runs slowly in loops

    c.method = 'supervised'
    c.options = ConfigDict()  # of the method: keywords of its `build`; see tljax/methods
    c.trains = 'encoder|head'  # what the player may move; see tljax.partition.select
    c.net = {'name': 'lenet'}
    c.endpoint = 'features'  # of the net: what the head reads; there are no layers behind it
    c.pool = 'mean'  # how maps or tokens of the endpoint become vectors; see tljax.nets.pooling
    c.head = {'name': 'linear'}
    c.steps = 1000

    # Where initial values come from: another run's directory, a sibling in a study, or published
    # weights (timm:, hf:, torchvision:, places365:, file:), of which `drop` names what to ignore.
    c.init = {'from': '', 'load': 'encoder', 'drop': ''}
    # Another run, or a sibling in a study, whose best setting of hparams and best evaluation, by a
    # score of a stream of its own, tell this run's hparams and steps; see tljax.tuning.
    c.tuned = {'by': '', 'stream': 'test', 'metric': 'accuracy'}
    # Compute the frozen part of the encoder once per image: in memory, or once for all runs in the
    # folder `features.root`, for published weights with all endpoints that `also` names.
    c.cache_prefix = False
    c.features = {'root': '', 'also': ()}

    # Traced scalars, so that a sweep over them is one compiled program.
    c.hparams = {
        'rate': 0.05,
        'momentum': 0.9,  # of sgd and nesterov; the first of Adam's betas
        'weight_decay': 5e-4,
        'label_smoothing': 0.0,
        'weight': 1.0,  # of a method's second loss: adaptation, reconstruction ...
        'margin': 0.1,  # of zero-shot rankings
        'calibration': 0.0,  # of zero-shot learning: off the scores of seen classes
    }
    # Members: copies of the run in one compiled program, one for every combination of the values
    # given here for seed, labels_per_class and any key of hparams; (): as set elsewhere.
    c.members = dict.fromkeys(('seed', 'labels_per_class', *c.hparams), ())
    c.optimizer = {
        'name': 'sgd',  # sgd, nesterov, adam, adamw
        'schedule': 'constant',  # constant, cosine, step, annealed
        'warmup': 0,  # updates of linear warm-up
        'boundaries': (),  # of the step schedule, in updates
        'factor': 0.1,  # of the step schedule
        'clip': 0.0,  # global norm of the gradient; 0: off
        'accumulate': 1,  # steps whose gradients make one update
        'rates': ConfigDict(),  # pattern -> factor on the rate
    }

    c.data = {
        'size': 0,  # side in pixels; 0: what the net declares
        'channels': 0,  # 1 or 3; 0: what the net declares
        'fit': 'crop',  # how an image becomes square; see tljax.data.decode.Pixels
        'data_dir': '',  # of prepared TFDS sets, or several joined by ':'; '': TFDS's own
        # Streams up to this size live on the device; larger ones are fed, and refused where they
        # have to live there: for cached activations, episodes and pairs.
        'resident_mb': 1024,
        # What classes are like, for zero-shot learning: one or more of csv:<file>, words:<file> ...
        # put side by side; see tljax.data.semantics.KINDS.
        'embeddings': (),
        'wrap': False,  # let a batch larger than a subset hold an example more than once
        'workers': 0,  # processes that decode fed streams; 0: threads
        'streams': {'source': stream()},
        'evaluate': {'test': held_out()},
    }

    c.evaluate_every = 0  # steps; 0: at the end
    c.save_every = 0  # steps between checkpoints beside those at evaluations
    c.block = 500  # examples a block in evaluation
    # Which step to keep: last, or by a row of tljax.selection.SELECTORS. Those without labels of
    # the target need held out streams: 'val' (of the source), 'target' (unlabelled), or both.
    c.selection = 'last'

    c.sharding = {'devices': 0, 'parameters': 'replicated'}  # 0: all; replicated or fsdp
    c.tensorboard = False

    # A study is several runs over this one: name -> what differs. The arms are compared with the
    # one that is the `baseline`, or where that is '', as where each is a test of its own, not at
    # all; the `ceiling`, if any, is the arm that no other is expected to reach, because it knows
    # more, and that none is judged by.
    c.runs = ConfigDict()
    c.compare = {'baseline': '', 'ceiling': '', 'arms': (), 'stream': 'test', 'metric': 'accuracy'}
    # Other scores of the arms to show: streams, or stream:metric where the metric is another one.
    c.compare.also = ()
    # For verdicts by task: task -> the run that learns it alone; or arm -> the same for this arm.
    c.compare.twins = ConfigDict()
    return c


def stream(dataset: str = '', **options) -> dict:
    """A training stream; its labels reach the losses only if `labelled`."""
    return _checked(
        {
            'dataset': dataset,  # see tljax.data.sources.OPEN
            'split': 'train',
            'classes': (),  # names or numbers to keep, relabelled in this order; (): all
            'only': (),  # classes to keep examples of, without relabelling; (): all
            'sample': 0,  # examples, the same for every member; 0: all
            'fit': '',  # how an image becomes square; '': as data.fit says
            'labels_per_class': 0,  # few-shot subset, drawn by the member's seed; 0: all
            'batch': 64,
            # Structured batches, of their own size, in place of `batch` shuffled examples:
            # 'episode:WAYxSHOTxQUERY' or 'pairs:N'; see tljax.data.episodes.
            'draw': '',
            'labelled': True,
            'augment': '',  # such as flip|shift:2
            'tasks': (),  # label columns, where several tasks are learnt; (): the classes alone
            'shares': ConfigDict(),  # task -> share of its labels that is kept; others: all
        },
        options,
    )


def held_out(dataset: str = '', **options) -> dict:
    """A stream to evaluate on, in order; no label of it is looked at unless it is `labelled`."""
    return _checked(
        {
            'dataset': dataset,
            'split': 'test',
            'classes': (),
            'only': (),
            'among': '',  # what the answer is one of: '' (all classes), seen or unseen ones
            'sample': 0,
            'fit': '',
            'labelled': True,
            'tasks': (),
            # How unseen classes are recognised, such as 'episode:5x1x15:1000'; '': the run's own
            # classes are predicted. See tljax.evaluation.unseen.
            'protocol': '',
        },
        options,
    )


def tuples(value: Any) -> Any:
    """What JSON made lists as the tuples they were."""
    if isinstance(value, Mapping):
        return {key: tuples(one) for key, one in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def label(name: str) -> str:
    """A word for data or weights: 'folder:pacs/photo' is 'photo', 'file:a/net-1.th' 'net_1'."""
    return _words(name)[-1]


def labels(names: Sequence[str], taken: Collection[str] = ()) -> list[str]:
    """A label for each of several names, no two alike and none of those that are `taken`.

    Where `label` would give two the same or one that is taken, the parent folder goes in front,
    'a/photo' and 'b/photo' being 'a_photo' and 'b_photo', or, where that does not tell them apart,
    a number behind: 'mnist' and 'mnist_2'.
    """
    short = [label(name) for name in names]
    long = ['_'.join(_words(name)) for name in names]
    found: list[str] = []
    for one, longer in zip(short, long, strict=True):
        if (short.count(one) > 1 or one in taken) and (short + long).count(longer) == 1:
            one = longer
        numbered = (f'{one}_{number}' for number in itertools.count(2))
        used = (*taken, *found)
        found.append(next(word for word in itertools.chain([one], numbered) if word not in used))
    return found


def _words(name: str) -> list[str]:
    """The last part of a name as a word; before it the folder that it is in, where it tells one."""
    name = re.sub(r'(:.+):\d+\.[\d.*]+$', r'\1', name.strip('/'))  # the version in tfds:mnist:3.0.1
    *parents, last = name.rpartition(':')[2].split('/')
    parents = [parent for parent in parents[-1:] if parent.strip('.')]
    return [re.sub(r'\W+', '_', one) for one in (*parents, last.rpartition('.')[0] or last)]


def _checked(known: dict, options: dict) -> dict:
    if extra := set(options) - set(known):
        raise ValueError(f'unknown stream options {sorted(extra)}; there are {sorted(known)}')
    return known | options


def transfer_study(c: ConfigDict, pretrain: dict | None = None, weights: str = '') -> ConfigDict:
    """Adds the runs that answer: from scratch, frozen features, or fine-tuning?

    Args:
      c: the target task, as every arm trains it.
      pretrain: what differs in the source task, whose encoder two of the arms start from.
      weights: published ones that they start from instead.
    """
    start = {'init': {'from': weights or 'pretrain', 'load': 'encoder'}}
    if pretrain:
        c.runs.pretrain = pretrain
    c.runs.scratch = {}
    c.runs.frozen = {'trains': 'head', 'cache_prefix': True, **start}
    c.runs.fine_tuned = start
    c.compare.update(baseline='scratch', arms=('scratch', 'frozen', 'fine_tuned'))
    return c


# Dicts whose keys are the user's: a change replaces them whole.
_OPEN = ('net', 'head', 'rates', 'options', 'shares', 'twins')


def checked(config: ConfigDict) -> ConfigDict:
    """A copy of a config with every key of `default`, itself and the runs of a study checked.

    Raises:
      ValueError: a key that does not exist, or a value of another type than the default's.
    """
    base = default()
    base.data.streams, base.data.evaluate = ConfigDict(), ConfigDict()  # update would keep theirs
    own = {key: value for key, value in config.items() if key not in ('runs', 'compare')}
    result = merged(base, own)
    result.runs = ConfigDict(config.get('runs', {}))
    _merge(result.compare, config.get('compare', {}), 'compare.')
    for name, changes in result.runs.items():
        merged(result, changes, f'runs.{name}.')
    return result


def merged(base: ConfigDict, changes: ConfigDict, where: str = '') -> ConfigDict:
    """A copy of `base`, without its runs, with the changes of one run of a study.

    Raises:
      ValueError: a change to a key that does not exist, or of another type; `where` is what the
        message puts before the key.
    """
    result = base.copy_and_resolve_references()
    result.unlock()
    del result.runs, result.compare
    _merge(result, changes, where)
    result.update(runs=ConfigDict(), compare=default().compare)
    return result


def _merge(into: ConfigDict, changes, where: str) -> None:
    for key, value in changes.items():
        path = f'{where}{key}'
        if where.endswith(('data.streams.', 'data.evaluate.')) and key not in into:
            into[key] = stream() if where.endswith('streams.') else held_out()
        if key not in into:
            raise unknown(f'key of {f"config.{where}"[:-1]}', key, into)
        _set(into, key, value, path)


def _set(into: ConfigDict, key: str, value, path: str) -> None:
    nested = isinstance(into[key], ConfigDict)
    if nested != isinstance(value, Mapping | ConfigDict):
        found = 'several keys' if nested else type(into[key]).__name__
        raise ValueError(f'config key {path}: expected {found}, got {value!r}')
    if not nested or key in _OPEN:
        try:
            into[key] = ConfigDict(value) if nested else value
        except TypeError:
            kind = type(into[key]).__name__
            raise ValueError(f'config key {path}: expected {kind}, got {value!r}') from None
    else:
        _merge(into[key], value, f'{path}.')
