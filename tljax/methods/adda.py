"""Adversarial discriminative domain adaptation: Tzeng et al. 2017, arXiv:1702.05464, section 4.

In three steps: a classifier of the source; then, with it fixed, an encoder of the target that
starts as a copy of the source's and learns to pass for it before a discriminator; and prediction
with the target's encoder and the source's head.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from tljax import partition
from tljax.data.streams import unit
from tljax.losses.adversarial import domain_accuracy, domain_bce, inverted_bce
from tljax.methods.adaptation import beyond, check_no_weight, check_source_share, check_streams
from tljax.methods.networks import Classifier
from tljax.methods.supervised import source_phase
from tljax.nets import build_head
from tljax.nets.apply import apply, variables
from tljax.types import Array, Key, Method, Mutable, Params, Phase, Player, Spec


def build(
    config,
    spec: Spec,
    optimizer,
    *,
    source_share: float = 0.5,
    adapts: str = '',
    momentum: float = 0.5,
    widths=(500, 500),
) -> Method:
    """Phase 'source' of the player 'model'; phase 'adapt' of 'discriminator' and 'target' in turn.

    Args:
      config: the run's config: net, head, trains (for the source), steps (of both phases).
      spec: what the data are.
      optimizer: steps -> (hp -> optax transformation).
      source_share: of the steps, for the source; 0 where `init.from` gives a classifier of it.
      adapts: pattern of what the player 'target' may move; '': what `trains` names of the encoder.
      momentum: in the phase 'adapt', in place of hparams.momentum.
      widths: of the discriminator's hidden layers.
    """
    check_streams(config)
    check_no_weight(config)
    check_source_share(source_share)
    ours = Classifier.build(config, spec)
    net = build_head('mlp', 1, widths=tuple(widths))

    before = round(source_share * config.steps)
    rule = optimizer(config.steps - before)
    calm = lambda hp: rule({**hp, 'momentum': momentum})
    source = source_phase('source', config, ours, optimizer, before)
    source = source._replace(predict=lambda *args: ours(*args)[0])
    enter = lambda params, mutable, *_: copied(params, mutable)
    moves = adapts or doubled(config, spec, ours)
    adapt = Phase('adapt', config.steps - before, players(ours, net, moves, calm), enter=enter)
    return Method(
        init=lambda key, spec: init(ours, net, key, spec),
        phases=(source, adapt) if before else (adapt,),
        predict=lambda *args: target_of(ours)(*args)[0],
        predict_source=lambda *args: ours(*args)[0],
    )


def target_of(classifier: Classifier) -> Classifier:
    """The classifier with the target's encoder in place of the source's."""
    return classifier._replace(role='target_encoder')


def doubled(config, spec: Spec, ours: Classifier) -> str:
    """The pattern of the target's encoder that names what config.trains names of the source's."""
    pattern = beyond(config, spec, ours, 'head')
    params, _ = jax.eval_shape(lambda: ours.init(jax.random.key(0), spec))
    named = (path for path in partition.paths(params) if partition.matches(path, pattern))
    return '|'.join(f'target_{path}' for path in named)


def init(ours: Classifier, net: nn.Module, key: Key, spec: Spec) -> tuple[Params, Mutable]:
    """Initial values of the classifier, the target's encoder and the discriminator `net`."""
    keys = jax.random.split(key)
    params, mutable = ours.init(keys[0], spec)
    made = variables(net, keys[1], jnp.zeros((1, ours.width(spec))))
    params['discriminator'], mutable['discriminator'] = made
    return copied(params, mutable)


def players(
    ours: Classifier,
    net: nn.Module,
    adapts: str,
    rule: Callable,
    source: Callable[[Params, Array], Array] = lambda params, images: images,
) -> tuple[Player, Player]:
    """The discriminator, and the target's encoder that is to pass for the source's.

    Args:
      ours: the classifier of the source.
      net: the discriminator.
      adapts: pattern of what the second may move.
      rule: hp -> optax transformation.
      source: (params, images of the source in [0, 1]) -> what the source's encoder sees of them.
    """
    theirs = target_of(ours)

    def score(classifier, images, params, mutable, key):
        keys = jax.random.split(key)
        out, mutable = classifier(params, mutable, images, keys[0])
        args = ('discriminator', params, mutable, out['features'])
        logits, mutable = apply(net, *args, key=keys[1])
        return logits[:, 0], mutable

    def tell(params, mutable, batch, hp, key):
        del hp
        keys = jax.random.split(key)
        images = source(params, unit(batch['source']['image'])), unit(batch['target']['image'])
        real, mutable = score(ours, images[0], params, mutable, keys[0])
        target, mutable = score(theirs, images[1], params, mutable, keys[1])
        found = {'accuracy': domain_accuracy(real, target)}
        return domain_bce(real, target), (found, mutable)

    def pass_for_source(params, mutable, batch, hp, key):
        del hp
        target, mutable = score(theirs, unit(batch['target']['image']), params, mutable, key)
        return inverted_bce(target), ({}, mutable)

    return (
        Player('discriminator', 'discriminator', tell, rule),
        Player('target', adapts, pass_for_source, rule),
    )


def copied(params, mutable):
    """The target's encoder as a copy of the source's, statistics included."""
    params = {**params, 'target_encoder': params['encoder']}
    return params, {**mutable, 'target_encoder': mutable['encoder']}
