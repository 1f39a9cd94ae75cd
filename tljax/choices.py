"""What can be told from a config alone, before any data are read: its choices, and its members."""

import itertools
import math
from functools import reduce

import numpy as np

from tljax import board, methods, selection, sharding
from tljax.evaluation import zero_shot
from tljax.inputs import batch_of
from tljax.methods.networks import check_readout, encoder
from tljax.train import Members
from tljax.types import check_keywords, unknown

# Hyper-parameters that are 0 or more, and what they stay below.
BELOW = {'rate': math.inf, 'weight_decay': math.inf, 'momentum': 1, 'label_smoothing': 1}


def check(config) -> None:
    """Refuses choices that cannot be.

    Raises:
      ValueError: a name that nothing has, or a number that cannot be.
    """
    for kind, name, known in (
        ('method', config.method, methods.METHODS),
        ('selection', config.selection, selection.CHOICES),
        ('lifting', config.lifting, ('auto', 'vmap', 'map')),
        ('sharding.parameters', config.sharding.parameters, ('replicated', 'fsdp')),
    ):
        if name not in known:
            raise unknown(kind, name, known)
    build, options = methods.METHODS[config.method], config.options
    check_keywords(build, options, f'option of method {config.method!r}')
    if config.method in methods.CHECKS:
        methods.CHECKS[config.method](config)
    for name, stream in config.data.evaluate.items():
        if stream.among not in zero_shot.AMONG:
            raise unknown(f'data.evaluate.{name}.among', stream.among, zero_shot.AMONG)
    labelled = {name: stream.labelled for name, stream in config.data.evaluate.items()}
    if stream := selection.lacking(config.selection, labelled):
        lacks = ', labelled' if stream in labelled else ''
        raise ValueError(f'selection={config.selection} needs data.evaluate.{stream}{lacks}')
    least = {('steps',): 0, ('evaluate_every',): 0, ('save_every',): 0, ('block',): 1}
    least |= {('sharding', 'devices'): 0, ('data', 'workers'): 0, ('data', 'resident_mb'): 0}
    for name in config.data.streams:
        least['data', 'streams', name, 'batch'] = 1
        least['data', 'streams', name, 'labels_per_class'] = 0
        least['data', 'streams', name, 'sample'] = 0
    for name in config.data.evaluate:
        least['data', 'evaluate', name, 'sample'] = 0
    for path, low in least.items():
        value = reduce(lambda tree, key: tree[key], path, config)
        if value < low:
            raise ValueError(f'{".".join(path)} is {value}; expected {low} or more')
    if config.tensorboard:
        board.writer_class()
    check_readout(encoder(config), config.features.also, config.pool)
    for place in ('streams', 'evaluate'):
        if not config.data[place]:
            raise ValueError(f'data.{place} is empty; expected one or more streams')
    if 'source' not in config.data.streams or not config.data.streams.source.labelled:
        raise ValueError(
            "data.streams: expected a labelled stream 'source'; "
            'set data.streams.source.labelled=True'
        )
    devices = sharding.mesh(config.sharding.devices).size
    for name, stream in config.data.streams.items():
        sharding.check_batch(batch_of(stream), devices, name)


def members(config) -> Members:
    """Every combination of the values in config.members, or the one member of config.seed.

    Raises:
      ValueError: an axis that is neither seed, labels_per_class nor a hyper-parameter, or a value
        that cannot be.
    """
    axes = {'seed': (config.seed,)} | {n: tuple(v) for n, v in config.members.items() if len(v)}
    known = ['seed', 'labels_per_class', *config.hparams]
    for name, values in axes.items():
        if name not in known:
            raise unknown('member axis', name, known)
        whole = name not in config.hparams
        fits = all(
            isinstance(value, int) and 0 <= value < 2**32
            if whole
            else isinstance(value, int | float)
            for value in values
        )
        if not fits or len(set(values)) < len(values):
            kind = 'whole numbers in 0..2^32-1' if whole else 'numbers'
            raise ValueError(f'members.{name}={values}: expected different {kind}')
    for name, top in BELOW.items():
        for value in axes.get(name, (config.hparams[name],)):
            if not 0 <= value < top:
                below = f' and under {top}' if math.isfinite(top) else ''
                raise ValueError(f'hparams.{name} is {value}; expected 0 or more{below}')
    table = tuple(dict(zip(axes, row, strict=True)) for row in itertools.product(*axes.values()))
    hp = {
        name: np.asarray([member.get(name, value) for member in table], np.float32)
        for name, value in config.hparams.items()
    }
    return Members(table, np.asarray([member['seed'] for member in table], np.uint32), hp)
