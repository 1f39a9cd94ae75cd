"""Wasserstein distance guided representation learning: Shen et al. 2018, arXiv:1707.01217."""

import jax
import jax.numpy as jnp

from tljax.losses.adversarial import critic_distance, gradient_penalty
from tljax.losses.classification import accuracy, cross_entropy
from tljax.methods.adaptation import both, check_streams
from tljax.methods.networks import Classifier
from tljax.nets import build_head
from tljax.nets.apply import variables
from tljax.types import Key, Method, Phase, Player, Spec


def build(
    config,
    spec: Spec,
    optimizer,
    *,
    inner: int = 5,
    penalty: float = 10.0,
    widths=(100,),
    together: bool = True,
) -> Method:
    """A step is n moves of the critic, then one of the model, all on one batch.

    The player 'critic' maximises the distance W that it sees between the domains' features, less
    the gradient penalty; the player 'model' minimises the source's cross entropy and
    hp['weight'] * W.

    Args:
      config: the run's config: net, head, trains, steps.
      spec: what the data are.
      optimizer: (steps, moves a step) -> (hp -> optax transformation).
      inner: n.
      penalty: weight of the gradient penalty, at the features and at points between the domains.
      widths: of the critic's hidden layers.
      together: one batch of both domains, normalised together, or one after the other.
    """
    check_streams(config)
    classifier, net = Classifier.build(config, spec), build_head('mlp', 1, widths=tuple(widths))

    def init(key: Key, spec: Spec):
        keys = jax.random.split(key)
        params, mutable = classifier.init(keys[0], spec)
        made = variables(net, keys[1], jnp.zeros((1, classifier.width(spec))))
        params['critic'], mutable['critic'] = made
        return params, mutable

    def judged(params, mutable, batch, key):
        """The classifier's view of both domains, and the critic as a function of features."""
        source, target, mutable = both(classifier, params, mutable, batch, key, together)
        value = lambda x: net.apply({'params': params['critic']}, x)[:, 0]
        return source, target, value, mutable

    def critic(params, mutable, batch, hp, key):
        del hp
        keys = jax.random.split(key)
        source, target, value, mutable = judged(params, mutable, batch, keys[0])
        ends = [out['features'] for out in (source, target)]
        count = min(map(len, ends))
        share = jax.random.uniform(keys[1], (count, 1))
        between = share * ends[0][:count] + (1 - share) * ends[1][:count]
        steepness = gradient_penalty(value, jnp.concatenate([*ends, between]))
        apart = critic_distance(*map(value, ends))
        return penalty * steepness - apart, ({'distance': apart}, mutable)

    def model(params, mutable, batch, hp, key):
        source, target, value, mutable = judged(params, mutable, batch, key)
        label = batch['source']['label']
        loss = cross_entropy(source['logits'], label, hp['label_smoothing'])
        loss += hp['weight'] * critic_distance(value(source['features']), value(target['features']))
        return loss, ({'accuracy': accuracy(source['logits'], label)}, mutable)

    players = (
        *[Player('critic', 'critic', critic, optimizer(config.steps, inner))] * inner,
        Player('model', config.trains, model, optimizer(config.steps)),
    )
    return Method(
        init=init,
        phases=(Phase('train', config.steps, players),),
        predict=lambda *args: classifier(*args)[0],
    )
