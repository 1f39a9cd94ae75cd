"""The JAX side of `benchmark.py`: steps as a run makes them, drawing and normalising included."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tljax import config as configs
from tljax import initial, optimizers
from tljax.data import streams as data
from tljax.data.sources import Source
from tljax.losses.classification import cross_entropy
from tljax.methods import supervised
from tljax.methods.networks import Classifier
from tljax.nets import build_head
from tljax.nets.apply import apply, variables
from tljax.prepare import members_of, options_of
from tljax.program import Program
from tljax.types import Method, Phase, Player, Spec


def adversarial(config, spec: Spec, optimizer) -> Method:
    """The shape of DANN: a second head on both domains' features, its gradient reversed."""
    classifier = Classifier.build(config, spec)
    discriminator = build_head('mlp', 1, widths=(500, 500))

    def init(key, spec):
        params, mutable = classifier.init(key, spec)
        params['discriminator'], _ = variables(discriminator, key, jnp.zeros((1, 500)))
        return params, mutable

    def loss(params, mutable, batch, hp, key):
        source, target = batch['source'], batch['target']
        both = jnp.concatenate([source['image'], target['image']])
        both = classifier.encoder.input.normalise(both)
        features, mutable = apply(classifier.encoder, 'encoder', params, mutable, both, key=key)
        count = len(source['label'])
        logits, mutable = apply(classifier.head, 'head', params, mutable, features[:count], key=key)
        reversed_ = 2 * jax.lax.stop_gradient(features) - features  # the value, minus the gradient
        guess, mutable = apply(discriminator, 'discriminator', params, mutable, reversed_, key=key)
        domain = (jnp.arange(len(both)) < count).astype(jnp.float32)
        value = cross_entropy(logits, source['label'])
        value += optax.sigmoid_binary_cross_entropy(guess[:, 0], domain).mean()
        return value, ({}, mutable)

    player = Player('model', 'encoder|head|discriminator', loss, optimizer(config.steps))
    return Method(init, (Phase('train', config.steps, (player,)),), None)


METHODS = {'supervised': supervised.build, 'dann': adversarial}


def loop(
    kind: str, images: np.ndarray, labels: np.ndarray, batch: int, rate: float, momentum: float
):
    """A function of a number of steps that trains so long, in one compiled call.

    Args:
      kind: of `METHODS`.
      images: [N, 28, 28, 1] uint8, of both domains.
      labels: [N] int32.
      batch: examples of each domain.
      rate: of SGD.
      momentum: of SGD.
    """
    config = configs.default()
    config.hparams.update(rate=rate, momentum=momentum, weight_decay=0.0)
    config.net = {'name': 'lenet'}
    names = tuple(map(str, range(10)))
    source = Source('noise', names, labels, images.__getitem__, images.shape[1:])
    order, count = data.select(source, [0], [0])
    streams = {
        name: data.Stream(name, source, order, count, batch, labelled, image=images)
        for name, labelled in (('source', True), ('target', False))[: 1 + (kind == 'dann')]
    }
    spec = Spec(source.image, names)
    method = METHODS[kind](config, spec, partial(optimizers.build, config.optimizer))
    members = members_of(config)
    values = initial.drawn(method, spec, members.seed)
    program = Program(method.phases[0], streams, members, values, options_of(config))
    state = program.begin(values, 0, None)

    def run(steps: int) -> None:
        nonlocal state
        state = jax.block_until_ready(program.run(state, 0, steps, None))

    return run
