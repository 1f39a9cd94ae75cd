"""Backbones of published weights against their references: every endpoint, and gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.nets import published
from tests.nets.published import SMALL, WHOLE
from tljax.nets.blocks import IMAGENET
from tljax.nets.cifar_resnet import CifarResNet
from tljax.nets.imagenet_resnet import ImageNetResNet
from tljax.nets.vgg import VGG
from tljax.nets.vit import ViT

TOLERANCE = 1e-4  # relative to the largest value


@pytest.mark.parametrize('name', SMALL)
def test_every_endpoint_equals_the_reference(name, tmp_path):
    case = SMALL[name]
    shapes, golden = published.golden(name)
    params, mutable = published.loaded(case, published.weights(shapes), tmp_path)
    ours = published.outputs(case, params, mutable, by_stage=True)
    for endpoint in (*case.net.endpoints, 'head', *case.aux):
        value = ours[endpoint]
        assert value.shape == tuple(golden[f'{endpoint}/shape']), endpoint
        assert published.error(published.sample(value), golden[f'{endpoint}/sample']) < TOLERANCE
        rms = np.sqrt(np.mean(value.astype(np.float64) ** 2))
        assert rms == pytest.approx(golden[f'{endpoint}/rms'], rel=TOLERANCE), endpoint
    if case.gradient:
        found = published.summary(published.gradients(case, params, mutable))
        scale = golden['largest'][:, None]
        assert np.abs((found['gradients'] - golden['gradients']) / scale).max() < TOLERANCE
        np.testing.assert_allclose(found['largest'], golden['largest'], rtol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize('name', [*SMALL, *WHOLE])
def test_every_number_equals_the_live_reference(name, tmp_path):
    pytest.importorskip('torch', reason='the references need torch, torchvision and timm')
    from tests.nets import reference

    case = SMALL.get(name) or WHOLE[name]
    model, stages, aux = reference.build(name, case.size)
    arrays = published.weights(reference.state_shapes(model))
    reference.fill(model, arrays)
    images = published.images(case.size)
    params, mutable = published.loaded(case, arrays, tmp_path)
    ours, theirs = (
        published.outputs(case, params, mutable),
        reference.outputs(stages, aux, images),
    )
    assert ours.keys() == theirs.keys()
    errors = {endpoint: published.error(ours[endpoint], theirs[endpoint]) for endpoint in ours}
    print(f'{name}: largest relative error {max(errors.values()):.1e}')
    assert max(errors.values()) < TOLERANCE, errors
    if case.gradient:
        ours, theirs = (
            published.gradients(case, params, mutable),
            reference.gradients(model, stages, images),
        )
        assert ours.keys() == theirs.keys()
        errors = {name: published.error(ours[name], theirs[name]) for name in ours}
        print(f'{name}: largest relative error of a gradient {max(errors.values()):.1e}')
        assert max(errors.values()) < TOLERANCE, errors


TINY = {
    'conv': (VGG(11, norm=True, width=2), 16, 'stage2'),
    'attention': (ViT('tiny', patch=8, blocks=1), 16, 'features'),
}


@pytest.mark.parametrize('name', TINY)
def test_bfloat16_is_near_float32(name):
    net, size, until = TINY[name]
    x = jax.random.normal(jax.random.key(0), (2, size, size, 3))
    variables = jax.jit(partial(net.init, until=until))(jax.random.key(1), x)
    nets = (net, net.clone(dtype='bfloat16'))
    one, two = (jax.jit(partial(run.apply, until=until))(variables, x) for run in nets)
    assert 1e-6 < published.error(two.astype(jnp.float32), one) < 0.1


@pytest.mark.parametrize('name', SMALL)
def test_bfloat16_is_one_setting(name):
    case = SMALL[name]
    net = case.net.clone(dtype='bfloat16')
    x = jnp.zeros((1, case.size, case.size, 3))
    made = jax.eval_shape(net.init, jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(made['params'])} == {jnp.dtype('float32')}
    found = jax.eval_shape(partial(net.apply, until=net.endpoints), made, x)
    dtypes = {endpoint: found[endpoint].dtype for endpoint in net.endpoints}
    assert dtypes.pop('features') == jnp.float32
    assert set(dtypes.values()) == {jnp.dtype('bfloat16')}


def test_transform_input_is_part_of_the_declared_input():
    # torchvision normalises by ImageNet's mean and std and then undoes it channel by channel.
    image = np.random.default_rng(0).random((4, 4, 3))
    x = (image - IMAGENET['mean']) / IMAGENET['std']
    x = x * (np.array(IMAGENET['std']) / 0.5) + (np.array(IMAGENET['mean']) - 0.5) / 0.5
    for net in (SMALL['googlenet'].net, SMALL['inception_v3'].net):
        np.testing.assert_allclose(net.input.normalise(image), x, atol=1e-6)


def test_there_is_no_such_size():
    for net in (CifarResNet(18), ImageNetResNet(20), VGG(12), ViT('large')):
        with pytest.raises(ValueError, match=r'unknown size of .* there are'):
            jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
