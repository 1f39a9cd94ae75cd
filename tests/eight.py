"""Runs on one, three and eight simulated devices; `test_sharding` reads what they write.

JAX_NUM_CPU_DEVICES=8 python -m tests.eight OUT
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import optax

from tests import toys
from tljax import config, experiment, prepare, sharding
from tljax.checkpoints import flatten
from tljax.data import streams as data
from tljax.losses.divergence import mmd
from tljax.types import Method, Phase, Player

OUT = Path(sys.argv[1])


def matching(width=128, steps=5):
    """Cross entropy and MMD of source and target features, with norms; notes what it draws."""
    base = toys.classifier(net=toys.Encoder(width, rate=0.2), steps=steps)
    net = toys.Encoder(width, rate=0.2)
    (source,) = base.phases[0].players

    def loss(params, mutable, batch, hp, key):
        mutable = dict(mutable)
        notes = mutable.pop('notes')
        value, (metrics, mutable) = source.loss(params, mutable, batch, hp, key)
        features = []
        for name in ('source', 'target'):
            image = data.unit(batch[name]['image'])
            x, mutable = toys.apply(net, 'encoder', params, mutable, image, key=key)
            features.append(x)
        distance = mmd(*features, estimator='biased')  # with the bandwidth of the global batch
        notes = jnp.concatenate([notes[1:], batch['target']['index'][None]])
        metrics = {**metrics, 'mmd': distance}
        return value + distance, (metrics, {**mutable, 'notes': notes})

    def init(key, spec):
        params, mutable = base.init(key, spec)
        return params, {**mutable, 'notes': jnp.zeros((steps, 16), jnp.int32)}

    player = Player('model', 'encoder|head', loss, lambda hp: optax.sgd(hp['rate'], hp['momentum']))
    return Method(init, (Phase('train', steps, (player,)),), base.predict)


def train(name, devices, members=1, **options):
    """Five steps in the run directory `name`, or what is left of them."""
    method, of = matching(), toys.members(*range(members), rate=0.1, momentum=0.9)
    streams = {
        'source': toys.stream(batch=16, members=members),
        'target': toys.stream('target', toys.source(40, seed=3), 16, members, fed=name == 'fed'),
    }
    found = toys.fit(OUT / name, method, streams, of, mesh=sharding.mesh(devices), **options)
    if not found.fitted:
        return None
    params, mutable = found.fitted.params, found.fitted.mutable
    np.savez(OUT / f'{name}.npz', **flatten({'params': params, 'mutable': mutable}))
    return {
        'mmd': found.lines[-1]['train']['model/mmd'],
        'kernel': str(params['encoder']['high']['dense']['kernel'].sharding.spec),
    }


def evaluate(devices, count):
    """Scores of two members on `count` examples, and what the nets say of each of them."""
    method, of = toys.classifier(), toys.members(0, 1)
    values = toys.drawn(method, of)
    held = {'test': toys.stream('test', toys.source(count), members=2)}
    c = config.default()
    c.block = 32
    prepared = SimpleNamespace(
        config=c,
        options=SimpleNamespace(mesh=sharding.mesh(devices), lifting='vmap'),
        spec=toys.SPEC,
        members=of,
        held=held,
        method=method,
    )
    scores = experiment.evaluator(prepared)(*values, method.phases[0])[0]['test']
    return {name: scores[name] for name in ('count', 'confusion', 'accuracy')}


def refused():
    c = config.default()
    c.net = {'name': 'mlp', 'widths': (4,), 'dense': 4, 'input': {'size': 8, 'channels': 1}}
    c.data.streams.source = config.stream('sklearn:digits', batch=25)
    c.data.evaluate.test = config.held_out('sklearn:digits')
    try:
        prepare.prepare(c)
    except ValueError as error:
        return str(error)


if __name__ == '__main__':
    found = {'refused': refused()}
    found['one'] = train('one', 1)
    found['eight'] = train('eight', 8)
    found['fsdp'] = train('fsdp', 8, parameters='fsdp')
    found['fed'] = train('fed', 8)
    found['members'] = train('members', 8, 2, parameters='fsdp')
    train('moved', 8, parameters='fsdp', stop_at=3)
    found['moved'] = train('moved', 1)
    found['scores'] = {n: {d: evaluate(d, n) for d in (1, 3, 8)} for n in (13, 97)}
    (OUT / 'found.json').write_text(json.dumps(found))
