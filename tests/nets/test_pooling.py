"""Pooling is what NumPy makes of the positions."""

import jax.numpy as jnp
import numpy as np
import pytest

from tljax.nets.pooling import POOLINGS, pool

MAP = np.random.RandomState(0).normal(size=(3, 2, 4, 5)).astype(np.float32)
WANTED = {
    'mean': MAP.reshape(3, 8, 5).mean(1),
    'max': MAP.reshape(3, 8, 5).max(1),
    'mean_max': np.concatenate([MAP.mean((1, 2)), MAP.max((1, 2))], -1),
    'first': MAP[:, 0, 0],
    'flat': MAP.reshape(3, 40),
    'none': MAP,
}


@pytest.mark.parametrize('how', POOLINGS)
def test_pooling(how):
    np.testing.assert_allclose(pool(jnp.asarray(MAP), how), WANTED[how], rtol=1e-6)
    # Tokens are positions too; vectors stay as they are, but for their type.
    if how != 'none':
        np.testing.assert_allclose(pool(MAP.reshape(3, 8, 5), how), WANTED[how], rtol=1e-6)
    vectors = pool(jnp.asarray(MAP[:, 0, 0], jnp.bfloat16), how)
    assert vectors.shape == (3, 5)
    assert vectors.dtype == pool(MAP.astype(jnp.bfloat16), how).dtype == np.float32


def test_unknown():
    with pytest.raises(ValueError, match=r"unknown pooling 'meen': .*did you mean 'mean'\?"):
        pool(MAP, 'meen')
