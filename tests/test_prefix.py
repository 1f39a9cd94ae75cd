"""A cached prefix is the uncached run."""

import jax
import numpy as np
import pytest

from tests import runs, toys
from tljax import partition, prefix, trunk
from tljax.nets.apply import variables
from tljax.nets.mlp import MLP
from tljax.types import Spec


@pytest.mark.parametrize(
    ('trains', 'dropout', 'endpoint'),
    [
        ('head', 0.0, 'features'),
        ('encoder/dense|head', 0.0, 'hidden2'),
        ('encoder/hidden2', 0.0, 'hidden1'),
        ('head', 0.5, 'features'),
        # The encoder around its dropouts is trained in part, so they are on.
        ('encoder/dense|head', 0.5, None),
        ('encoder/hidden1/bias', 0.0, None),
    ],
)
def test_the_deepest_frozen_endpoint(trains, dropout, endpoint):
    """Nothing that is trained, or random, comes before the cut."""
    net, spec = MLP((6, 5), 4, dropout), Spec((8, 8, 1), ('a', 'b'))
    params, mutable = variables(net, jax.random.key(0), np.zeros((2, 8, 8, 1)))
    values = {'encoder': params, 'head': {'kernel': np.zeros((4, 2))}}, {'encoder': mutable}
    trained = partition.select(values[0], trains)
    if endpoint:
        assert prefix.deepest_frozen(net, spec, values, trained) == endpoint
    else:
        with pytest.raises(ValueError, match="'hidden1', is trained, or"):
            prefix.deepest_frozen(net, spec, values, trained)


def test_a_cached_run_is_the_uncached_one(tmp_path):
    """Two members with their own encoders and label counts, the encoder frozen in part."""
    changes = {'trains': 'encoder/dense|head', 'steps': 5, 'data.wrap': True}
    both = []
    for cache in (False, True):
        c = runs.run(cache_prefix=cache, **changes)
        c.members.seed, c.members.labels_per_class = (0, 1), (1, 4)
        both.append(toys.fit_config(tmp_path / str(cache), c))
    (plain, ours), (cached, theirs) = both
    assert cached.spec.since == 'hidden1'
    assert cached.streams['source'].image.shape[2:] == (24,)
    # The frozen layers are no part of what is trained and saved.
    frozen = trunk.leaves(cached.trunk)[0]
    assert frozen.keys() == {'encoder/hidden1/bias', 'encoder/hidden1/kernel'}
    toys.close(partition.flat(theirs.params) | frozen, ours.params, 1e-6)
    # And in evaluation.
    images, activations = (ready.held['test'].image for ready in (plain, cached))
    for m in range(4):
        params = jax.tree.map(lambda x: x[m], ours.params)
        a = plain.method.predict(params, {}, images[:50])['logits']
        b = cached.method.predict(params, {}, activations[m, :50])['logits']
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
