"""Decoders, generators and patch discriminators: shapes, ranges and what each output sees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.nets.decoders import Decoder, upsampled
from tljax.nets.generators import Generator, PatchDiscriminator

KEY = jax.random.key(0)


def made(net, *shape):
    """The net as a compiled function of its input, with random parameters."""
    x = jax.random.normal(KEY, shape)
    variables = jax.jit(net.init)(KEY, x)
    return jax.jit(lambda x: net.apply(variables, x)), x


def test_upsampling_repeats_pixels():
    x = jax.random.normal(KEY, (2, 3, 4, 5))
    found = upsampled(x)
    for i, j in np.ndindex(6, 8):
        np.testing.assert_array_equal(found[:, i, j], x[:, i // 2, j // 2])


@pytest.mark.parametrize('image', [(8, 8, 1), (7, 10, 3)])
def test_images_may_have_any_side(image):
    decoder, generator = Decoder(image, (4, 3), 3), Generator(image[-1], (3, 4, 5), 1, 3)
    for net, shape in ((decoder, (2, 6)), (generator, (2, *image))):
        x = jax.ShapeDtypeStruct(shape, jnp.float32)
        out, _ = jax.eval_shape(lambda x: net.init_with_output(KEY, x), x)
        assert out.shape == (2, *image)


def test_a_decoder_by_hand():
    """Dense, convolution, doubling and a last convolution that counts neighbours."""
    net = Decoder((2, 2, 1), (1,), 3)
    centre = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(2.0)
    params = {
        'dense': {'kernel': jnp.array([[1.0], [-3.0]]), 'bias': jnp.array([0.5])},
        'conv1': {'kernel': centre, 'bias': jnp.array([1.0])},
        'pixels': {'kernel': jnp.ones((3, 3, 1, 1)), 'bias': jnp.array([-1.0])},
    }
    found = net.apply({'params': params}, jnp.array([[2.0, 0.5], [0.0, 1.0]]))
    # 2 - 1.5 + 0.5 = 1 -> 2 * 1 + 1 = 3 in each of 4 pixels -> 12 - 1; below zero -> 1 -> 4 - 1.
    np.testing.assert_allclose(
        found[..., 0], np.array([11.0, 3.0])[:, None, None] * np.ones((2, 2))
    )


def test_a_generator_translates_each_image_by_itself():
    generate, x = made(Generator(1, (3, 4), 1, 3), 2, 8, 8, 1)
    found = generate(x)
    assert (np.abs(found) < 1).all() and found.any()
    swapped = generate(x.at[0].set(5.0))
    np.testing.assert_allclose(swapped[1], found[1], 1e-4, 1e-5)
    assert (swapped[0] != found[0]).any()


def test_a_patch_discriminator_looks_at_patches():
    """Where no norm sees the whole image, a corner moves only the scores that are near."""
    judge, x = made(PatchDiscriminator((3,), 4), 1, 16, 16, 1)
    scores = judge(x)
    assert scores.shape == (1, 8, 8)
    moved = judge(x.at[:, 0, 0].add(1.0)) != scores
    assert moved[0, 0, 0]
    assert not moved[0, 4:].any() and not moved[0, :, 4:].any()
