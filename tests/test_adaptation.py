"""Both domains through one network, and the ramp of an adaptation loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.test_methods import prepared_for
from tljax.methods import adaptation
from tljax.methods.networks import Classifier


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
