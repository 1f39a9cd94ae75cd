"""Adversarial and source-free adaptation: who moves when, and what each player minimises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import runs, toys
from tests.data.test_episodes import drawn
from tests.test_methods import built, config_for, fit, prepared_for
from tljax import config as configs
from tljax import experiment, partition
from tljax.losses.classification import cross_entropy
from tljax.losses.entropy import aligned_pseudo_labels
from tljax.methods.shot import clusters
from tljax.prepare import build_method, prepare
from tljax.types import Spec

RANDOM = np.random.RandomState(0)
SPEC = Spec((8, 8, 1), tuple('56789'), rows={'target': 12})
IMAGES = jnp.asarray(RANDOM.randint(0, 255, (10, 8, 8, 1)), jnp.uint8)
BATCH = {
    'source': {'image': IMAGES[:6], 'label': jnp.arange(6) % 5},
    'target': {'image': IMAGES[6:], 'index': jnp.arange(4)},
}
HP = {'rate': 0.1, 'momentum': 0.0, 'weight_decay': 0.0, 'label_smoothing': 0.0, 'weight': 0.7}
HP |= {'progress': 0.3}
STRENGTH = 0.7 * (2 / (1 + np.exp(-3)) - 1)


def values_of(method):
    return jax.jit(lambda key: method.init(key, SPEC))(jax.random.key(0))


def surer(values):
    """With a head of 10 times its size: at first predictions are all but even."""
    params, mutable = values
    head = params['head']
    return {**params, 'head': {**head, 'kernel': 10 * head['kernel']}}, mutable


def gradients(player, values, batch=BATCH):
    loss = lambda params: player.loss(params, values[1], batch, HP, jax.random.key(1))[0]
    return jax.grad(loss)(values[0])


def test_two_players_make_the_steps_of_reversal(tmp_path):
    plain = {'hparams.momentum': 0.0, 'steps': 5}
    made = [
        fit(
            prepared_for('dann', (0,), options={'widths': (6,), 'form': form}, **plain),
            tmp_path / form,
        )
        for form in ('players', 'reversal')
    ]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 1e-5, 1e-7), *made)


def seen_by_hand(name, method, params, mutable):
    """What the discriminator sees of each domain, and how much every example counts."""
    for stream in ('source', 'target'):
        out = method.predict(params, mutable, BATCH[stream]['image'])
        x, soft = out['features'], jax.lax.stop_gradient(jax.nn.softmax(out['logits']))
        weights = jnp.ones(len(x))
        if name == 'cdan_e':
            weights += jnp.exp((soft * jnp.log(soft)).sum(1))
        if name != 'dann':
            x = jnp.stack([x[:, d] * soft[:, c] for d in range(x.shape[1]) for c in range(5)], 1)
        yield x, weights / weights.sum()


@pytest.mark.parametrize('name', ['dann', 'cdan', 'cdan_e'])
def test_the_model_goes_down_its_loss_and_up_the_discriminators(name):
    """With a head that is far from even in its predictions, which maps and weights depend on."""
    method = built(name, options={'widths': (6,)})
    params, mutable = values = surer(values_of(method))
    model, discriminator = method.phases[0].players
    found = gradients(model, values)
    against = gradients(discriminator, values)
    alone = gradients(built('supervised').phases[0].players[0], values)
    assert not jax.tree.reduce(lambda a, x: a or x.any(), against['encoder'], False), 'strength 0'

    def told(params):
        """The discriminator's loss as a plain function of what it sees."""
        losses, seen = [], seen_by_hand(name, method, params, mutable)
        for sign, (x, weights) in zip((-1, 1), seen, strict=True):
            first, last = (params['discriminator'][layer] for layer in ('dense1', 'logits'))
            x = jax.nn.relu(x @ first['kernel'] + first['bias'])
            logits = (x @ last['kernel'] + last['bias'])[:, 0]
            losses.append(weights @ jnp.log1p(jnp.exp(sign * logits)))
        return sum(losses) / 2

    up = jax.jit(jax.grad(told))(params)
    toys.close(against['discriminator'], up['discriminator'], 1e-4)
    toys.close(found['head'], alone['head'], 1e-4)  # nothing passes through the predictions
    beside = jax.tree.map(lambda g, a: g - a, found['encoder'], alone['encoder'])
    toys.close(beside, jax.tree.map(lambda u: -STRENGTH * u, up['encoder']), 1e-3)


def test_adda_adapts_a_copy_and_leaves_the_source(tmp_path):
    prepared = prepared_for('adda', (0,), steps=6)
    seen = toys.by_phase(tmp_path, prepared)
    source, adapted = seen['source'], seen['adapt']
    for role in ('encoder', 'head'):
        jax.tree.map(np.testing.assert_array_equal, source[role], adapted[role])
    flat = {role: partition.flat(adapted[role]) for role in ('encoder', 'target_encoder')}
    apart = [abs(flat['encoder'][p] - leaf).max() for p, leaf in flat['target_encoder'].items()]
    assert 0 < max(apart) < 0.5, 'started as a copy, and went on from there'


def test_adda_predicts_with_the_encoder_of_the_target():
    method = built('adda', options={'widths': (6,)})
    params, mutable = values_of(method)
    moved = {**params, 'target_encoder': jax.tree.map(lambda x: 2 * x, params['encoder'])}
    swapped = {**params, 'encoder': moved['target_encoder']}
    source, _ = method.phases
    expected = source.predict(swapped, mutable, IMAGES)['logits']
    np.testing.assert_allclose(method.predict(moved, mutable, IMAGES)['logits'], expected, 1e-5)
    kept = source.predict(moved, mutable, IMAGES)['logits']
    np.testing.assert_allclose(kept, source.predict(params, mutable, IMAGES)['logits'], 1e-5)


def test_the_three_moves_of_mcd():
    method = built('mcd', options={'inner': 3})
    values = values_of(method)
    a, b, *c = method.phases[0].players
    assert [player.name for player in c] == ['encoder'] * 3
    owned = [
        {path.split('/')[0] for path in partition.select(values[0], player.trains)}
        for player in (a, b, c[0])
    ]
    assert owned == [{'encoder', 'head', 'head2'}, {'head', 'head2'}, {'encoder'}]
    losses = [p.loss(*values, BATCH, HP, jax.random.key(1)) for p in (a, b, c[0])]
    (first, _), (second, (found, _)), (third, _) = losses
    assert float(second) == pytest.approx(float(first - third), rel=1e-4)
    assert float(third) == pytest.approx(0.7 * float(found['discrepancy']), rel=1e-5)
    heads = gradients(b, values)
    encoder = gradients(c[0], values)
    assert any(leaf.any() for leaf in jax.tree.leaves(heads['head']))
    assert any(leaf.any() for leaf in jax.tree.leaves(encoder['encoder']))


@pytest.mark.parametrize('name', ['mcd', 'wdgrl'])
def test_who_moves_several_times_a_step_anneals_as_slowly_as_the_others(name):
    cosine = {'optimizer.schedule': 'cosine', 'optimizer.name': 'sgd', 'steps': 4}
    (phase,) = built(name, options={'inner': 3}, **cosine).phases
    leaf = {'encoder': {'kernel': jnp.zeros((1, 1))}}
    seen = {}
    for player in phase.players:
        rule = player.optimizer(HP)
        at, state = seen.get(player.name) or ([], rule.init(leaf))
        for _ in range(phase.steps):
            updates, state = rule.update(jax.tree.map(jnp.ones_like, leaf), state, leaf)
            at.append(-float(updates['encoder']['kernel'][0, 0]) / HP['rate'])
        seen[player.name] = at, state
    falling = 0.5 * (1 + np.cos(np.pi * np.arange(4) / 4))
    for at, _ in seen.values():
        np.testing.assert_allclose(at, np.repeat(falling, len(at) // 4), atol=1e-6)
    assert sorted(len(at) // 4 for at, _ in seen.values())[-1] == 3


def test_clusters_are_those_of_the_paper_by_hand():
    features, logits = RANDOM.randn(30, 4), RANDOM.randn(30, 3)
    logits[:, 2] -= 20  # predicted by none: out
    valid = np.arange(30) < 25
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    soft = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    centroids = np.stack([(soft[valid, c, None] * unit[valid]).sum(0) for c in (0, 1)])
    for _ in range(2):
        centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
        label = (unit @ centroids.T).argmax(1)
        centroids = np.stack([unit[valid & (label == c)].sum(0) for c in (0, 1)])
    found = clusters(*map(jnp.asarray, (features, logits, valid)))
    np.testing.assert_array_equal(found, label)


def test_shot_forgets_the_source(tmp_path):
    """Another stream 'source' in the second phase changes nothing; the head stays."""
    method = build_method(config_for('shot'), SPEC)
    values = values_of(method)
    _, phase = method.phases
    (player,) = phase.players
    other = {**BATCH, 'source': {'image': IMAGES[::-1][:6], 'label': jnp.zeros(6, int)}}
    jax.tree.map(
        np.testing.assert_array_equal,
        gradients(player, values),
        gradients(player, values, other),
    )
    owned = partition.select(values[0], player.trains)
    assert {path.split('/')[0] for path in owned} == {'encoder'}


def test_adamatch_learns_the_target_by_strong_images_only():
    """At progress 0 it is supervised learning of weak and strong images; then the target joins."""
    method = built('adamatch', options={'strong': '', 'threshold': 0.0})
    values, (player,) = values_of(method), method.phases[0].players
    alone = gradients(built('supervised').phases[0].players[0], values)
    start = jax.grad(
        lambda params: player.loss(
            params, values[1], BATCH, HP | {'progress': 0.0}, jax.random.key(1)
        )[0]
    )(values[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 2 * b, 1e-4, 1e-6), start, alone)
    logits = method.predict(*values, BATCH['target']['image'])['logits']
    source = method.predict(*values, BATCH['source']['image'])['logits']
    pseudo, _ = aligned_pseudo_labels(source, logits)
    mu = 0.5 - np.cos(2 * np.pi * 0.3) / 2
    apart = -(pseudo * jax.nn.log_softmax(logits)).sum(1).mean()
    both = [
        player.loss(values[0], values[1], BATCH, HP | {'progress': p}, jax.random.key(1))[0]
        for p in (0.0, 0.3)
    ]
    assert float(both[1] - both[0]) == pytest.approx(0.7 * mu * float(apart), rel=1e-3)
    with pytest.raises(ValueError, match=r'options\.threshold is 2'):
        built('adamatch', options={'threshold': 2})


def test_a_target_smaller_than_its_batch_is_refused_or_wrapped(tmp_path):
    c = config_for('dann', steps=2)
    c.data.streams.target.sample = 7
    with pytest.raises(ValueError, match=r"'target'.* 7 "):
        experiment.run(configs.checked(c), tmp_path / 'a')
    c.data.wrap = True
    found = experiment.run(configs.checked(c), tmp_path / 'b')
    assert np.isfinite(found['scores']['test']['loss']).all()
    assert '7 sampled' in found['protocol']


def test_a_source_that_is_drawn_class_by_class(tmp_path):
    c = config_for('dann', steps=2, **{'data.streams.source.draw': 'episode:5x3x3'})
    prepared = prepare(c)
    label = drawn(prepared.streams['source'], 0, 1)['label']
    assert np.bincount(label).tolist() == [6] * 5
    params, _ = fit(prepared, tmp_path)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_what_lacks_a_domain_is_refused():
    with pytest.raises(ValueError, match=r'there is no data\.streams\.target, only source'):
        built_without_target()
    c = config_for('dann')
    c.data.streams.source.labelled = False
    with pytest.raises(ValueError, match=r'set data\.streams\.source\.labelled=True'):
        experiment.prepare(configs.checked(c))


def test_adda_refuses_a_weight_of_a_loss_that_it_has_not():
    for change in ({'hparams.weight': 0.5}, {'members.weight': (0.5, 1.0)}):
        with pytest.raises(ValueError, match=r"weight=\S.* method 'adda' has no second loss"):
            built('adda', **change)


@pytest.mark.parametrize(('steps', 'every'), [(600, 20), (40, 2), (4, 1)])
def test_shot_renews_its_pseudo_labels_however_few_the_steps(steps, every):
    """Of a target whose epoch is longer than the phase."""
    method = build_method(
        config_for('shot', steps=steps, options={}), SPEC._replace(rows={'target': 60_000})
    )
    assert method.phases[-1].every == every
    assert method.phases[-1].steps == steps // 2
    method = build_method(config_for('shot', steps=steps, options={'every': 7}), SPEC)
    assert method.phases[-1].every == 7


def test_shot_weighs_its_pseudo_labels():
    method = build_method(config_for('shot', options={'pseudo': 0.3}), SPEC)
    params, mutable = values_of(method)
    (player,) = method.phases[-1].players
    value = lambda weight: player.loss(
        params, mutable, BATCH, HP | {'weight': weight}, jax.random.key(1)
    )[0]
    apart = value(2.0) - value(0.0)
    logits = method.predict(params, mutable, IMAGES[6:])['logits']
    expected = 0.6 * cross_entropy(logits, mutable['pseudo_labels'][:4])
    np.testing.assert_allclose(apart, expected, 1e-4)


def built_without_target():
    return experiment.prepare(configs.checked(runs.run(method='dann')))
