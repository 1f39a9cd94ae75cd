"""CyCADA: the semantic term, what is fixed in which stage, and the shares of the steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from tests.test_methods import TRANSLATION, built, prepared_for
from tljax.losses.reconstruction import semantic_consistency
from tljax.methods.networks import Classifier
from tljax.methods.translator import Translator

HP = {'rate': 0.1, 'momentum': 0.9, 'weight_decay': 0.0, 'label_smoothing': 0.0, 'weight': 3.0}
SMALL = TRANSLATION | {'pool': 0, 'discriminator_widths': (6,)}


@pytest.fixture(scope='module')
def prepared():
    return prepared_for('cycada', seeds=(0,))


@pytest.fixture(scope='module')
def batch(prepared):
    images = jnp.asarray(prepared.held['test'].image)
    source = {'image': images[:6], 'label': jnp.arange(6) % 5}
    return {'source': source, 'target': {'image': images[6:10]}}


def test_what_an_image_is_taken_for_it_is_to_be_taken_for_after_translation(prepared, batch):
    params, mutable = toys.one_of(jax.tree.map(np.asarray, prepared.values))
    generators = prepared.method.phases[1].players[0]
    value, (parts, _) = jax.jit(generators.loss)(params, mutable, batch, HP, jax.random.key(0))
    classifier = Classifier.build(prepared.config, prepared.spec)
    translator = Translator.build(prepared.spec, 0, *TRANSLATION.values())
    expected = 0.0
    for name, to in (('source', 'target'), ('target', 'source')):
        images = batch[name]['image']
        there = translator.translated(to, params, images)
        seen = [classifier(params, mutable, x)[0]['logits'] for x in (images, there)]
        expected += float(semantic_consistency(*seen))
    assert float(parts['semantic']) == pytest.approx(expected, rel=1e-4)
    plain = float(parts['deception'] + 10 * parts['cycle'])
    assert float(value) == pytest.approx(plain + 3 * expected, rel=1e-4)


def test_the_model_learns_from_the_source_in_the_style_of_the_target(prepared, batch):
    params, mutable = toys.one_of(jax.tree.map(np.asarray, prepared.values))
    phase = prepared.method.phases[2]
    value, _ = phase.players[0].loss(params, mutable, batch, HP, jax.random.key(0))
    translator = Translator.build(prepared.spec, 0, *TRANSLATION.values())
    styled = translator.translated('target', params, batch['source']['image'])
    classifier = Classifier.build(prepared.config, prepared.spec)
    log = jax.nn.log_softmax(classifier(params, mutable, styled)[0]['logits'])
    by_hand = -np.asarray(log)[np.arange(6), np.asarray(batch['source']['label'])].mean()
    assert float(value) == pytest.approx(by_hand, rel=1e-4)


def test_every_stage_moves_its_own_roles(prepared, tmp_path):
    seen = [toys.one_of(jax.tree.map(np.array, prepared.values[0]))]

    def watch(params, mutable, phase):
        seen.append(toys.one_of(jax.tree.map(np.asarray, params)))
        return toys.probe(params, mutable, phase)

    method = prepared.method
    assert [phase.name for phase in method.phases] == ['source', 'pixels', 'model', 'adapt']
    run = (method, prepared.streams, prepared.members)
    toys.fit(tmp_path, *run, values=prepared.values, evaluate=watch)
    images = {
        f'{kind}_{name}'
        for kind in ('generator_to', 'discriminator')
        for name in ('source', 'target')
    }
    moves = [{'encoder', 'head'}, images, {'encoder', 'head'}, {'target_encoder', 'discriminator'}]
    for before, after, expected in zip(seen, seen[1:], moves, strict=False):
        moved = {
            role
            for role in before
            if any(
                (x != y).any()
                for x, y in zip(*map(jax.tree.leaves, (before[role], after[role])), strict=True)
            )
        }
        assert moved == expected
    near = jax.tree.map(
        lambda x, y: np.abs(x - y).max(), seen[-1]['target_encoder'], seen[-1]['encoder']
    )
    assert 0 < max(jax.tree.leaves(near)) < 0.1, 'it began as a copy of the source encoder'


def test_the_stages_share_the_steps():
    steps = lambda shares, total: [
        (phase.name, phase.steps)
        for phase in built('cycada', steps=total, options=SMALL | {'shares': shares}).phases
    ]
    assert steps((0.2, 0.5, 0.15, 0.15), 10) == [
        ('source', 2),
        ('pixels', 5),
        ('model', 1),
        ('adapt', 2),
    ]
    assert steps((0.0, 0.5, 0.5, 0.0), 7) == [('pixels', 4), ('model', 3)]
    for shares in ((0.5, 0.5), (0.5, 0.5, 0.5, -0.5), (0.2, 0.2, 0.2, 0.2)):
        with pytest.raises(ValueError, match=r'options.shares.*four shares.*add up to 1'):
            steps(shares, 10)
