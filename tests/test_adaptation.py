"""Both domains through one network, and the ramp of an adaptation loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import adapt
from tests.test_methods import NORMED, PACKAGES, built, config_for, prepared_for
from tljax import config as configs
from tljax import experiment
from tljax.data.streams import unit
from tljax.methods import adaptation
from tljax.methods.networks import Classifier
from tljax.prepare import build_method
from tljax.types import Spec


def test_ramp_is_that_of_the_paper():
    progress = np.array([0.0, 0.1, 0.5, 1.0])
    by_hand = (1 - np.exp(-10 * progress)) / (1 + np.exp(-10 * progress))
    np.testing.assert_allclose(adaptation.ramp(jnp.asarray(progress)), by_hand, atol=1e-6)


@pytest.mark.parametrize('together', [True, False])
def test_both_domains_are_told_apart(together):
    prepared = prepared_for('supervised', seeds=(0,))
    classifier = Classifier.build(prepared.config, prepared.spec)
    values = jax.tree.map(lambda x: x[0], prepared.values)
    images = prepared.held['test'].image
    # A source that was augmented holds floats in [0, 1], a target as it was read bytes.
    batch = {'source': {'image': images[:5] / np.float32(255)}, 'target': {'image': images[5:12]}}
    source, target, _ = adaptation.both(classifier, *values, batch, jax.random.key(0), together)
    for found, part in ((source, images[:5]), (target, images[5:12])):
        alone, _ = classifier(*values, part)
        for name in ('logits', 'features'):
            np.testing.assert_allclose(found[name], alone[name], 1e-4, 1e-5)


@pytest.mark.parametrize('together', [True, False])
def test_running_statistics_are_of_the_batch_or_of_the_target_alone(together):
    prepared = prepared_for('supervised', seeds=(0,), net=NORMED)
    classifier = Classifier.build(prepared.config, prepared.spec)
    values = jax.tree.map(lambda x: x[0], prepared.values)
    source, target = np.split(prepared.held['test'].image[:12], [5])
    batch = {'source': {'image': source}, 'target': {'image': target}}
    key = jax.random.key(0)
    *_, found = adaptation.both(classifier, *values, batch, key, together)
    seen = np.concatenate([source, target]) if together else target
    _, expected = classifier(*values, seen, key)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), found, expected)
    before = jax.tree.leaves(values[1])
    assert any(
        np.abs(a - b).max() > 1e-3 for a, b in zip(before, jax.tree.leaves(found), strict=True)
    )


@pytest.mark.parametrize('method', ['dan', 'coral', 'adabn', 'coral_features', 'dann', 'shot'])
def test_a_missing_target_is_told_before_anything_is_trained(method):
    c = config_for(method)
    del c.data.streams['target']
    with pytest.raises(ValueError, match=r'there is no data\.streams\.target, only source'):
        build_method(c, Spec((8, 8, 1), ('a', 'b')))


@pytest.mark.parametrize('method', ['adda', 'shot', 'translation'])
def test_shares_that_leave_no_steps_for_the_target_are_refused(method):
    with pytest.raises(ValueError, match=r'options\.source_share is 1\.2; expected'):
        built(method, options={'source_share': 1.2})


def test_statistics_of_drcn_are_of_the_target_as_it_is():
    prepared = prepared_for('drcn', seeds=(0,), net=NORMED)
    params, mutable = jax.tree.map(lambda x: x[0], prepared.values)
    method = build_method(prepared.config, prepared.spec)
    image = prepared.held['test'].image
    source = {'image': image[:6], 'label': np.arange(6) % 5}
    batch, hp = {'source': source, 'target': {'image': image[6:10]}}, {'label_smoothing': 0.0}
    classify, reconstruct = method.phases[0].players
    key = jax.random.key(1)
    _, (_, kept) = classify.loss(params, mutable, batch, hp, key)
    jax.tree.map(np.testing.assert_array_equal, kept, mutable)
    classifier = Classifier.build(prepared.config, prepared.spec)
    _, wanted = classifier(params, mutable, unit(batch['target']['image']), key)
    _, (_, found) = reconstruct.loss(params, mutable, batch, hp, key)
    jax.tree.map(np.testing.assert_allclose, found['encoder'], wanted['encoder'])


@pytest.mark.parametrize('together', [True, False])
def test_the_statistics_of_mcd_are_those_of_one_network_with_two_heads(together):
    """Apart: none of the source's, whoever moves, in either head."""
    head = {'name': 'mlp', 'widths': (8,), 'norm': True}
    options = {'together': together}
    prepared = prepared_for('mcd', seeds=(0,), net=NORMED, head=head, options=options)
    params, mutable = jax.tree.map(lambda x: x[0], prepared.values)
    params, mutable = ({**one, 'head2': one['head']} for one in (params, mutable))
    method = build_method(prepared.config, prepared.spec)
    image = prepared.held['test'].image
    source, target = image[:6], image[6:10]
    label = np.arange(6) % 5
    batch = {'source': {'image': source, 'label': label}, 'target': {'image': target}}
    hp = {'label_smoothing': 0.0, 'weight': 1.0}
    classifier = Classifier.build(prepared.config, prepared.spec)
    joined = np.concatenate([source, target])
    seen = (source, joined, target) if together else (None, target, target)
    for player, images in zip(method.phases[0].players, seen, strict=False):
        _, (_, found) = player.loss(params, mutable, batch, hp, jax.random.key(1))
        wanted = mutable
        if images is not None:
            _, wanted = classifier(params, mutable, images, jax.random.key(1))
        wanted = {**wanted, 'head2': wanted['head']}
        close = lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6)
        jax.tree.map(close, dict(found), wanted)


def costly(*names):
    """Methods as parameters of a test that is slow for those that generate images."""
    slow = {'cycada', 'translation'}
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in slow)) for name in names]


@pytest.mark.parametrize('name', costly(*adapt.METHODS))
def test_a_target_of_one_class_and_of_fewer_images_than_a_batch(name, tmp_path):
    """Partial adaptation: trained on what the target has, tested on all."""
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name])
    c = config_for(name, steps=4)
    c.data.streams.target.update(classes=(7,), sample=7, batch=10)
    c.data.wrap = True
    found = experiment.run(configs.checked(c), tmp_path)
    assert np.isfinite(found['scores']['test']['loss']).all()
    assert len(found['classes']) == 5
    assert '7 sampled' in found['protocol']
