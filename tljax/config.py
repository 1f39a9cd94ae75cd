"""The config of a run, with every key, its default and what it means."""

from ml_collections import ConfigDict

from tljax.types import unknown


def default() -> ConfigDict:
    """A config that a file in `configs/` fills in; unknown keys fail."""
    c = ConfigDict()
    c.name = 'run'
    c.title = ''
    c.description = ''
    c.seed = 0
    # Members: copies of the run in one compiled program, one for every combination of the values
    # given here: seed, labels_per_class, or any key of hparams.
    c.members = ConfigDict({}, convert_dict=False)
    c.lifting = 'auto'  # vmap, map, or auto: whichever suits the device
    c.loop = True  # many steps a compiled call; False suits nets that XLA runs slowly in loops

    c.method = 'supervised'
    c.trains = 'encoder|head'  # what the player may move; see tljax.partition.select
    c.net = {'name': 'lenet'}
    c.head = {'name': 'linear'}
    c.steps = 1000

    # Where initial values come from: another run's directory, or a sibling in a study.
    c.init = {'from': '', 'load': 'encoder'}
    c.cache_prefix = False  # compute the frozen part of the encoder once per image

    c.hparams = {'rate': 0.05, 'momentum': 0.9, 'weight_decay': 5e-4, 'label_smoothing': 0.0}
    c.optimizer = {
        'name': 'sgd',  # sgd, adam, adamw
        'schedule': 'constant',  # constant, cosine, step, annealed
        'warmup': 0,  # updates of linear warm-up
        'boundaries': (),  # of the step schedule, in updates
        'factor': 0.1,  # of the step schedule
        'clip': 0.0,  # global norm of the gradient; 0: off
        'accumulate': 1,  # steps whose gradients make one update
        'rates': ConfigDict({}, convert_dict=False),  # pattern -> factor on the rate
    }

    c.data = {
        'size': 0,  # side in pixels; 0: what the net declares
        'channels': 0,  # 1 or 3; 0: what the net declares
        'fit': 'crop',  # how an image becomes square
        'data_dir': '',  # of prepared TFDS sets; '': TFDS's own
        'resident_mb': 1024,  # streams up to this size live on the device, larger ones are fed
        'wrap': False,  # let a batch larger than a subset hold an example more than once
        'workers': 0,  # processes that decode fed streams; 0: threads
        'streams': {'source': stream()},
        'evaluate': {'test': held_out()},
    }

    c.evaluate_every = 0  # steps; 0: at the end
    c.save_every = 0  # steps between checkpoints beside those at evaluations
    c.block = 500  # examples a block in evaluation
    c.selection = 'last'  # last, validation (a stream 'val'), or oracle (looks at the test stream)

    c.sharding = {'devices': 0, 'parameters': 'replicated'}  # 0: all; replicated or fsdp
    c.tensorboard = False

    # A study is several runs over this one: name -> what differs. The first arm in `arms` that
    # equals `baseline` is what the others are compared with.
    c.runs = ConfigDict({}, convert_dict=False)
    c.compare = {'baseline': '', 'arms': (), 'stream': 'test', 'metric': 'accuracy'}
    return c


def stream(dataset: str = '', **options) -> dict:
    """A training stream; its labels reach the losses only if `labelled`."""
    return _checked(
        {
            'dataset': dataset,  # sklearn:digits, tfds:<name>, folder:<path>, npz:<path>
            'split': 'train',
            'classes': (),  # names or numbers to keep, relabelled in this order; (): all
            'labels_per_class': 0,  # few-shot subset; 0: all
            'batch': 64,
            'labelled': True,
            'augment': '',  # such as flip|shift:2
        },
        options,
    )


def held_out(dataset: str = '', **options) -> dict:
    """A stream to evaluate on, whole and in order."""
    return _checked({'dataset': dataset, 'split': 'test', 'classes': ()}, options)


def _checked(known: dict, options: dict) -> dict:
    if extra := set(options) - set(known):
        raise ValueError(f'unknown stream options {sorted(extra)}; there are {sorted(known)}')
    return known | options


def transfer_study(c: ConfigDict, pretrain: dict) -> ConfigDict:
    """Adds the runs that answer: from scratch, frozen features, or fine-tuning?

    Args:
      c: the target task, as every arm trains it.
      pretrain: what differs in the source task, whose encoder two of the arms start from.
    """
    start = {'init': {'from': 'pretrain', 'load': 'encoder'}}
    c.runs.pretrain = pretrain
    c.runs.scratch = {}
    c.runs.frozen = {'trains': 'head', 'cache_prefix': True, **start}
    c.runs.fine_tuned = start
    c.compare.update(baseline='scratch', arms=('scratch', 'frozen', 'fine_tuned'))
    return c


# Dicts whose keys are the user's: a change replaces them whole.
_OPEN = ('members', 'net', 'head', 'rates')


def merged(base: ConfigDict, changes: ConfigDict) -> ConfigDict:
    """A copy of `base`, without its runs, with the changes of one run of a study.

    Raises:
      ValueError: a change to a key that does not exist.
    """
    result = base.copy_and_resolve_references()
    with result.unlocked():
        result.runs = ConfigDict()
        result.compare = default().compare
    _merge(result, changes, '')
    return result


def _merge(into: ConfigDict, changes, where: str) -> None:
    for key, value in changes.items():
        path = f'{where}{key}'
        if where in ('data.streams.', 'data.evaluate.') and key not in into:
            with into.unlocked():
                into[key] = stream() if where == 'data.streams.' else held_out()
        if key not in into:
            raise unknown('config key', path, [f'{where}{k}' for k in into])
        if key in _OPEN:
            with into.unlocked():
                into[key] = ConfigDict(value)
        elif isinstance(into[key], ConfigDict):
            _merge(into[key], value, f'{path}.')
        else:
            into[key] = value
