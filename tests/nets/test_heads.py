"""Heads by their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.nets import build_head

F = jax.random.normal(jax.random.key(0), (5, 4))


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_linear():
    head = build_head('linear', 3)
    params = {'kernel': jnp.arange(12.0).reshape(4, 3), 'bias': jnp.array([1.0, 2.0, 3.0])}
    close(head.apply({'params': params}, F), F @ params['kernel'] + params['bias'])
    assert set(build_head('linear', 3, use_bias=False).init(jax.random.key(0), F)['params']) == {
        'kernel'
    }


def test_mlp():
    head = build_head('mlp', 3, widths=(6, 7))
    params = head.init(jax.random.key(0), F)['params']
    assert list(params) == ['dense1', 'dense2', 'logits']
    hidden = F
    for name in ('dense1', 'dense2'):
        hidden = jnp.maximum(hidden @ params[name]['kernel'] + params[name]['bias'], 0)
    close(
        head.apply({'params': params}, F),
        hidden @ params['logits']['kernel'] + params['logits']['bias'],
    )


def test_mlp_with_norms():
    head = build_head('mlp', 3, widths=(6,), norm=True)
    params = head.init(jax.random.key(0), F)['params']
    assert list(params['dense1']) == ['kernel']
    live, _ = head.apply({'params': params, 'batch_stats': {}}, F, mutable=['batch_stats'])
    hidden = F @ params['dense1']['kernel']
    hidden = (hidden - hidden.mean(0)) / jnp.sqrt(hidden.var(0) + 1e-5)
    logits = params['logits']
    close(live, jnp.maximum(hidden, 0) @ logits['kernel'] + logits['bias'])


@pytest.mark.parametrize('learn_scale', [True, False])
def test_cosine(learn_scale):
    head = build_head('cosine', 3, scale=7.0, learn_scale=learn_scale)
    params = head.init(jax.random.key(0), F)['params']
    assert ('scale' in params) == learn_scale
    kernel = params['kernel']
    cosine = (F @ kernel) / (np.linalg.norm(F, axis=1)[:, None] * np.linalg.norm(kernel, axis=0))
    close(head.apply({'params': params}, F), 7 * cosine)


def test_cosine_of_nothing_is_zero_with_finite_gradients():
    head = build_head('cosine', 3)
    variables = head.init(jax.random.key(0), F)
    value, gradient = jax.value_and_grad(lambda f: head.apply(variables, f).sum())(
        jnp.zeros((1, 4))
    )
    assert value == 0
    assert np.isfinite(gradient).all()
