"""What adaptation minimises, step by step, from what the network gives for both domains."""

import jax
import jax.numpy as jnp
import pytest

from tests import toys
from tests.test_adversarial import BATCH, HP, STRENGTH, surer, values_of
from tests.test_methods import PACKAGES, built
from tljax.kernels import Gaussians
from tljax.losses import divergence, entropy
from tljax.losses.classification import cross_entropy

SMOOTHED = HP | {'label_smoothing': 0.1}
# Of the outputs for source and target, as the papers have it and the methods by default.
APART = {
    'cmd': lambda s, t: divergence.cmd(*(jnp.tanh(out['features']) for out in (s, t))),
    'coral': lambda s, t: divergence.coral(s['logits'], t['logits']),
    'dan': lambda s, t: sum(divergence.mmd(s[name], t[name]) for name in ('features', 'logits')),
    'entropy': lambda s, t: entropy.information_maximisation(t['logits']),
    'jan': lambda s, t: divergence.joint_mmd(
        *([out['features'], jax.nn.softmax(out['logits'])] for out in (s, t)),
        (Gaussians('mean', 5), Gaussians(1.68, 1)),
    ),
    'mcc': lambda s, t: entropy.class_confusion(t['logits']),
    'sinkhorn': lambda s, t: divergence.sinkhorn(s['features'], t['features']),
}
CONSTANT = ('mcc',)  # weighed alike throughout, by default


def outputs(method, params, mutable):
    """What the network gives for each domain on its own."""
    return [method.predict(params, mutable, BATCH[name]['image']) for name in ('source', 'target')]


@pytest.mark.parametrize('flipped', [False, True])
@pytest.mark.parametrize('name', APART)
def test_what_matches_domains_minimises_the_sources_loss_and_the_weighed_divergence(name, flipped):
    """By value and by gradient, with the default of `ramped` and the other way round."""
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name])
    ramped = (name not in CONSTANT) != flipped
    method = built(name, options={'ramped': ramped} if flipped else {})
    params, mutable = surer(values_of(method))
    (player,) = method.phases[0].players
    weight = STRENGTH if ramped else HP['weight']

    def found(params):
        return player.loss(params, mutable, BATCH, SMOOTHED, jax.random.key(1))[0]

    def by_hand(params):
        source, target = outputs(method, params, mutable)
        apart = weight * APART[name](source, target)
        return cross_entropy(source['logits'], BATCH['source']['label'], 0.1) + apart, apart

    @jax.jit
    def both(params):
        wanted = jax.value_and_grad(by_hand, has_aux=True)(params)
        return jax.value_and_grad(found)(params), wanted

    (value, gradient), ((wanted, apart), down) = both(params)
    assert abs(float(apart)) > 1e-2, 'too little to be missed'
    assert float(value) == pytest.approx(float(wanted), rel=1e-5)
    toys.close(gradient, down, 1e-4)


def critic_by_hand(params):
    """What wdgrl's critic makes of features [N, D], and its slope at each of them, [N, D]."""
    first, last = params['critic']['dense1'], params['critic']['logits']

    before = lambda x: x @ first['kernel'] + first['bias']
    value = lambda x: jax.nn.relu(before(x)) @ last['kernel'][:, 0] + last['bias']
    slope = lambda x: ((before(x) > 0) * last['kernel'][:, 0]) @ first['kernel'].T
    return value, slope


def wdgrl_by_hand(method, mutable, penalty, share):
    """Both players' losses of the parameters; `share` is the source's at the points between."""

    def critic(params):
        value, slope = critic_by_hand(params)
        x, y = (out['features'] for out in outputs(method, params, mutable))
        between = share * x[: len(y)] + (1 - share) * y
        steep = jnp.linalg.norm(slope(jnp.concatenate([x, y, between])), axis=1)
        return penalty * ((steep - 1) ** 2).mean() - (value(x).mean() - value(y).mean())

    def model(params):
        value, _ = critic_by_hand(params)
        source, target = outputs(method, params, mutable)
        apart = value(source['features']).mean() - value(target['features']).mean()
        loss = cross_entropy(source['logits'], BATCH['source']['label'], 0.1)
        return loss + HP['weight'] * apart

    return critic, model


def test_the_critic_of_wdgrl_and_the_model_by_hand():
    """By value, and by the gradient of what each may move."""
    method = built('wdgrl', options={'widths': (6,), 'inner': 2, 'penalty': 3.0})
    params, mutable = values_of(method)
    players = method.phases[0].players
    assert [player.name for player in players] == ['critic', 'critic', 'model']
    assert [player.trains for player in players] == ['critic', 'critic', 'encoder|head']
    key = jax.random.key(1)
    share = jax.random.uniform(jax.random.split(key)[1], (4, 1))  # as the critic draws it
    wanted = wdgrl_by_hand(method, mutable, 3.0, share)
    moved = ('critic',), ('encoder', 'head')
    for player, by_hand, roles in zip(players[1:], wanted, moved, strict=True):

        @jax.jit
        def both(params):
            found = lambda params: player.loss(params, mutable, BATCH, SMOOTHED, key)[0]
            return jax.value_and_grad(found)(params), jax.value_and_grad(by_hand)(params)

        (value, gradient), (expected, down) = both(params)
        assert float(value) == pytest.approx(float(expected), rel=1e-5)
        for role in roles:
            toys.close(gradient[role], down[role], 1e-4)
