"""The lowered convolution and pools against native ones: values and gradients."""

import subprocess
import sys
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tljax.nets import filtering
from tljax.nets.convolution import WIDE
from tljax.nets.geometry import Geometry
from tljax.nets.lowering import NHWC, Conv, ConvPool, FlatDense, conv, conv_pool, max_pool

native = lax.conv_general_dilated


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def close(found, expected):
    def leaf(a, b):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(1, np.abs(b).max()))

    jax.tree.map(leaf, found, expected)


def with_gradients(fn, *primals):
    """A function of the primals: the value and the gradients of a weighted sum of it."""
    weight = normal(9, *jax.eval_shape(fn, *primals).shape)

    def both(*primals):
        value, back = jax.vjp(fn, *primals)
        return value, back(weight)

    return both


@pytest.mark.parametrize(
    'image, side, strides, padding',
    [
        ((2, 7, 6, 3), (3, 3), (1, 1), 'SAME'),
        ((2, 8, 9, 4), (3, 2), (2, 2), 'SAME'),
        ((3, 9, 8, 2), (5, 3), (2, 1), 'VALID'),
        ((1, 8, 8, 2), (3, 3), (2, 2), ((1, 1), (1, 1))),
        ((1, 8, 7, 2), (3, 3), (2, 2), ((0, 1), (-1, 2))),
    ],
)
def test_depthwise(image, side, strides, padding):
    x, k = normal(0, *image), normal(1, *side, 1, image[-1])
    options = {'window_strides': strides, 'padding': padding, 'dimension_numbers': NHWC}
    options |= {'feature_group_count': image[-1]}
    run = [jax.jit(with_gradients(partial(f, **options), x, k)) for f in (conv, native)]
    close(run[0](x, k), run[1](x, k))
    # Of second order, and over models.
    twice = [jax.grad(lambda x, k, f=f: (f(x, k)[1][1] ** 2).sum(), (0, 1))(x, k) for f in run]
    close(*twice)
    many = jnp.stack([x, 2 * x]), jnp.stack([k, k - 1])
    close(jax.vmap(run[0])(*many), jax.vmap(run[1])(*many))


@pytest.mark.parametrize(
    'image, kernel, strides, padding',
    [
        ((2, 7, 6, 3), (3, 3, 3, 4), (1, 1), 'SAME'),
        ((2, 7, 6, 3), (3, 2, 3, 4), (2, 1), 'VALID'),
        ((1, 8, 8, 2), (3, 3, 2, 5), (2, 2), ((1, 1), (1, 1))),
        ((2, 9, 9, 1), (4, 4, 1, 2), (2, 2), 'SAME'),
        ((3, 5, 5, 4), (1, 1, 4, 2), (1, 1), 'SAME'),
        ((3, 5, 5, 4), (1, 1, 4, 2), (2, 2), 'VALID'),
        ((2, 5, 6, 4), (1, 1, 4, 2), (2, 3), ((1, 0), (2, 1))),
        ((2, 3, 4, 2), (3, 3, 2, WIDE), (1, 1), 'SAME'),
        ((2, 5, 4, 2), (3, 2, 2, WIDE), (2, 1), 'SAME'),
        ((2, 4, 3, WIDE), (3, 3, WIDE, 2), (1, 2), ((1, 1), (-1, 2))),
        ((1, 6, 6, 2), (3, 3, 2, 2), (1, 1), ((-1, 0), (2, -1))),
        # By minimal filtering.
        ((10, 8, 7, 32), (3, 3, 32, 32), (1, 1), 'SAME'),
        ((9, 8, 9, 32), (3, 2, 32, 33), (1, 1), 'VALID'),
        ((7, 9, 7, 33), (1, 3, 33, 32), (1, 1), ((1, 0), (2, 3))),
        ((8, 9, 8, 32), (2, 5, 32, 32), (1, 1), ((2, -1), (-1, 4))),
    ],
)
def test_conv(image, kernel, strides, padding):
    x, k = normal(0, *image), normal(1, *kernel)
    run = [
        jax.jit(
            with_gradients(
                partial(f, window_strides=strides, padding=padding, dimension_numbers=NHWC), x, k
            )
        )
        for f in (conv, native)
    ]
    close(run[0](x, k), run[1](x, k))


def test_lowered_for_the_cpu_only():
    """Elsewhere the programs hold the native convolutions, and no loop."""
    x, k = normal(0, 2, 6, 6, 3), normal(1, 3, 3, 3, 4)
    plain = lambda x, k: conv(x, k, (1, 1), 'SAME', dimension_numbers=NHWC)
    pooled = lambda x, k: conv_pool(x, k, jnp.zeros(4), 'SAME')
    pixel = lambda x, k: plain(x, k[:1, :1])
    depthwise = lambda x, k: conv(
        x, k[:, :, :1, :3], (1, 1), 'SAME', dimension_numbers=NHWC, feature_group_count=3
    )
    for fn, on_cpu in ((plain, 2), (pooled, 0), (pixel, 0), (depthwise, 0)):
        traced = jax.jit(with_gradients(fn, x, k)).trace(x, k)
        for platform in ('cpu', 'cuda', 'tpu'):
            text = traced.lower(lowering_platforms=(platform,)).as_text()
            assert text.count('stablehlo.convolution') == (on_cpu if platform == 'cpu' else 3)
            assert ('stablehlo.while' in text) == (platform == 'cpu' and fn in (plain, depthwise))


@pytest.mark.parametrize(
    'options',
    [
        {'rhs_dilation': (2, 2)},
        {'lhs_dilation': (2, 2), 'padding': ((1, 1), (2, 2))},
        {'feature_group_count': 2},
        {'dimension_numbers': ('NCHW', 'OIHW', 'NCHW')},
        {'dimension_numbers': None},
    ],
)
def test_conv_leaves_the_rest_to_native(options):
    options = {'window_strides': (1, 1), 'padding': 'SAME', 'dimension_numbers': NHWC} | options
    x = normal(0, 2, 4, 6, 4)
    k = normal(1, 4, 4, 4, 4)[:, :, : 4 // options.get('feature_group_count', 1)]
    np.testing.assert_array_equal(conv(x, k, **options), native(x, k, **options))


@pytest.mark.parametrize('shape', [(2, 6, 6, 2), (9, 8, 8, 32)])  # the second is filtered
def test_conv_over_models_over_inputs_and_in_a_loop(shape):
    plain = {'window_strides': (1, 1), 'padding': 'SAME', 'dimension_numbers': NHWC}
    xs, ks = normal(0, 3, *shape), normal(1, 3, 3, 3, *shape[-1:] * 2) / np.sqrt(9 * shape[-1])

    @partial(jax.jit, static_argnums=2)
    def run(xs, ks, conv):
        f = with_gradients(partial(conv, **plain), xs[0], ks[0])
        models, inputs = jax.vmap(f)(xs, ks), jax.vmap(f, (0, None))(xs, ks[0])
        looped = lax.fori_loop(0, 3, lambda i, x: jnp.tanh(conv(x, ks[i], **plain)), xs[0])
        return models, inputs, looped

    close(run(xs, ks, conv), run(xs, ks, native))


def test_conv_differentiates_to_any_order():
    x, k = normal(0, 2, 5, 5, 2), normal(1, 3, 3, 2, 2)

    @partial(jax.jit, static_argnums=2)
    def run(x, k, conv):
        f = lambda x, k: jnp.sum(conv(x, k, (2, 2), 'SAME', dimension_numbers=NHWC) ** 3)

        def penalty(x, k):
            return sum(jnp.sum(g**2) for g in jax.grad(f, (0, 1))(x, k))

        inner = jax.grad(penalty, (0, 1))(x, k)
        return inner, jax.grad(lambda k: jnp.sum(jax.grad(penalty)(x, k) ** 2))(k)

    close(run(x, k, conv), run(x, k, native))


@pytest.mark.parametrize(
    'kernel, groups', [((3, 3, 4, 4), 1), ((1, 1, 4, 4), 1), ((3, 3, 1, 4), 4)]
)
def test_conv_in_half_precision(kernel, groups):
    """As precise as a sum in float32, rounded once."""
    x, k = normal(0, 2, 6, 6, 4).astype(jnp.bfloat16), normal(1, *kernel).astype(jnp.bfloat16)
    options = {'dimension_numbers': NHWC, 'feature_group_count': groups}
    found = conv(x, k, (1, 1), 'SAME', **options)
    exact = native(x.astype(jnp.float32), k.astype(jnp.float32), (1, 1), 'SAME', **options)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(np.float32), exact, rtol=2**-8, atol=2**-8)


def test_linen_conv():
    x = normal(0, 2, 5, 5, 3)
    lowered, plain = (c(4, (3, 3), strides=2, name='c') for c in (Conv, nn.Conv))
    variables = plain.init(jax.random.key(0), x)
    close(lowered.apply(variables, x), plain.apply(variables, x))
    # Flax flattens further batch axes, and adds a missing one.
    close(lowered.apply(variables, x[None]), plain.apply(variables, x[None]))
    close(lowered.apply(variables, x[0]), plain.apply(variables, x[0]))


@pytest.mark.parametrize(
    'shape, window, strides, pads',
    [
        ((2, 6, 4, 3), 2, None, ((0, 0), (0, 0))),
        ((2, 7, 5, 3), (3, 2), None, ((0, 0), (0, 0))),
        ((2, 7, 7, 1), 3, 2, ((0, 0), (0, 0))),
        ((3, 2, 4, 4, 1), 2, 2, ((0, 0), (0, 0))),
        ((2, 7, 8, 2), (3, 2), (2, 1), ((1, 0), (1, 1))),
        ((2, 3, 5, 4, 2), 2, 2, ((0, 1), (1, 0))),
    ],
)
def test_max_pool(shape, window, strides, pads):
    # Whole numbers, so that there are ties.
    x = jnp.round(normal(0, *shape))
    sides = (window, window) if isinstance(window, int) else window
    steps = sides if strides is None else tuple(np.broadcast_to(strides, 2).tolist())
    ours = jax.jit(with_gradients(lambda x: max_pool(x, window, strides, pads), x))(x)

    def flax(x):
        around = ((0, 0),) * (x.ndim - 3) + pads + ((0, 0),)
        return nn.max_pool(jnp.pad(x, around, constant_values=-jnp.inf), sides, steps)

    close(ours, jax.jit(with_gradients(flax, x))(x))


def test_max_pool_shows_what_is_not_a_number():
    for at in range(4):
        x = jnp.zeros(4).at[at].set(jnp.nan).reshape(1, 2, 2, 1)
        assert jnp.isnan(max_pool(x, 2)).all()
        assert jnp.isnan(max_pool(x, 2, 1)).all()
        assert jnp.isnan(max_pool(x - jnp.inf, 2)).all()


@pytest.mark.parametrize('taps', [2, 3, 4, 5])
def test_minimal_filtering(taps):
    a, g, b = filtering.matrices(taps)
    kernel, image = np.asarray(normal(0, taps)), np.asarray(normal(1, taps + 3))
    expected = [kernel @ image[i : i + taps] for i in range(4)]
    np.testing.assert_allclose(a @ ((g @ kernel) * (b @ image)), expected, rtol=1e-6)
    assert (abs(b).max(1) == 1).all()


def test_minimal_filtering_of_too_many_taps():
    with pytest.raises(ValueError, match='4 outputs of 6 taps: 9 points, of 8'):
        filtering.matrices(6)


@pytest.mark.parametrize(
    'cached, held, swapped', [(1, 1, 4), (2 * 7 * 2 * 3 * 4, 3 * 7 * 2 * 3 * 4, 5)]
)
def test_minimal_filtering_by_blocks_of_examples(cached, held, swapped, monkeypatch):
    """An example a block, and several; a kernel swapped by its products, and before."""
    x, k, pads = normal(0, 6, 7, 9, 4), normal(1, 3, 3, 4, 5), ((2, 0), (-1, 1))
    monkeypatch.setattr(filtering, 'CACHED', cached)
    monkeypatch.setattr(filtering, 'HELD', held)
    monkeypatch.setattr(filtering, 'SWAPPED', swapped)
    fn = partial(native, window_strides=(1, 1), padding=pads, dimension_numbers=NHWC)
    expected, back = jax.vjp(fn, x, k)
    y = normal(2, *expected.shape)
    close(filtering.conv(x, k, pads), expected)
    turned = Geometry((7, 9), (3, 3), (1, 1), pads, None).back((7, 7)).pads
    close(filtering.conv(y, k, turned, turned=True), back(y)[0])
    close(filtering.kernel_gradient(x, y, (3, 3), pads), back(y)[1])


def test_what_is_filtered():
    """Of stride 1, many channels and pixels, few columns wasted, and digits enough."""
    x = lambda *shape, dtype=jnp.float32: jax.ShapeDtypeStruct(shape, dtype)
    same = Geometry((8, 8), (3, 3), (1, 1), ((1, 1), (1, 1)), None)
    assert same.filters(x(8, 8, 8, 32), 32)
    assert not same.filters(x(8, 8, 8, 32), 31)
    assert not same.filters(x(8, 8, 8, 31), 32)
    assert not same.filters(x(7, 8, 8, 32), 32)
    assert not same.filters(x(40, 5, 5, 32), 32)
    assert not same.filters(x(8, 8, 8, 32, dtype=jnp.bfloat16), 32)
    for change in ({'strides': (2, 2)}, {'kernel': (3, 7)}, {'kernel': (7, 1)}):
        assert not same._replace(**change).filters(x(32, 16, 16, 32), 32)


# As patches; with transformed columns, where the window is 2; as a plain convolution.
@pytest.mark.parametrize('inner', [2, 8, 32])
@pytest.mark.parametrize(
    'side, kernel, padding, window',
    [
        (8, 5, 'VALID', 2),
        (9, 3, 'SAME', 2),
        (7, 2, ((-1, 0), (0, 3)), 2),
        (10, 3, ((1, 0), (2, 1)), 3),
        (6, 4, 'SAME', 1),
    ],
)
def test_conv_pool(side, kernel, padding, window, inner):
    x, k, b = normal(0, 2, side, side, inner), normal(1, kernel, kernel, inner, 3), normal(2, 3)

    def plain(x, k, b):
        y = native(x, k, (1, 1), padding, dimension_numbers=NHWC) + b
        return nn.relu(nn.max_pool(y, (window, window), (window, window)))

    ours = partial(conv_pool, padding=padding, window=window)
    over = lambda f: jax.jit(with_gradients(jax.vmap(f), *twice))
    twice = [jnp.stack([a, -a]) for a in (x, k, b)]
    close(over(ours)(*twice), over(plain)(*twice))


@pytest.mark.parametrize('inner', [2, 8])  # as patches, and with transformed columns
def test_gradient_of_a_tie_goes_to_the_first_of_a_window(inner):
    x, k = jnp.zeros((2, 8, 8, inner)), normal(0, 3, 3, inner, 4)

    def gradient(fn):
        weight = normal(1, 2, 4, 4, 4)
        return jax.grad(lambda x: jnp.sum(fn(x) * weight))(x)

    ours = gradient(lambda x: conv_pool(x, k, jnp.ones(4), 'SAME'))
    flat = lambda x: native(x, k, (1, 1), 'SAME', dimension_numbers=NHWC)
    close(ours, gradient(lambda x: nn.max_pool(flat(x), (2, 2), (2, 2))))


def test_layers_with_a_norm():
    """Convolution, pool, norm, relu; and flattening, product, norm, relu."""
    few, many = normal(0, 4, 6, 6, 2), normal(0, 4, 6, 6, 8)

    def unit(y):
        y = (y - y.mean(axes)) / np.sqrt(y.var(axes) + 1e-5)
        return np.maximum(y * params['norm']['scale'] + params['norm']['bias'], 0)

    pooled = ConvPool(3, (3, 3), norm=True), (0, 1, 2)
    for x, layer, axes in ((few, *pooled), (many, *pooled), (few, FlatDense(5, True), (0,))):
        variables = layer.init(jax.random.key(0), x)
        params = {'kernel': variables['params']['kernel']}
        size = params['kernel'].shape[-1]
        params['norm'] = {'scale': normal(1, size), 'bias': normal(2, size)}
        live, _ = layer.apply(variables | {'params': params}, x, mutable=['batch_stats'])
        if axes == (0,):
            y = x.reshape(4, -1) @ params['kernel']
        else:
            y = native(x, params['kernel'], (1, 1), 'VALID', dimension_numbers=NHWC)
            y = nn.max_pool(y, (2, 2), (2, 2))
        close(live, unit(np.asarray(y)))


SHARDED = """
import jax, jax.numpy as jnp
jax.config.update('jax_num_cpu_devices', 4)
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from tljax.nets.convolution import WIDE
from tljax.nets.geometry import Geometry
from tljax.nets.lowering import NHWC, conv, conv_pool, max_pool
mesh = jax.make_mesh((4,), ('batch',), axis_types=(AxisType.Auto,))
x = jax.random.normal(jax.random.key(0), (8, 8, 8, 8))
k = jax.random.normal(jax.random.key(1), (3, 3, 8, 8))

def loss(x, k):
    y = max_pool(conv(x, k, (1, 1), 'SAME', dimension_numbers=NHWC), 2)
    return jnp.sum(conv_pool(y, k, jnp.ones(8), 'SAME') ** 2)

f = jax.jit(jax.value_and_grad(loss, (0, 1)))
put = lambda a, *spec: jax.device_put(a, NamedSharding(mesh, P(*spec)))
sharded = f(put(x, 'batch'), put(k))
for a, b in zip(jax.tree.leaves(sharded), jax.tree.leaves(f(x, k))):
    assert jnp.allclose(a, b, rtol=1e-5, atol=1e-5 * jnp.abs(b).max()), abs(a - b).max()
"""


def test_on_a_mesh():
    """In a process of its own: the number of devices is fixed when the backend starts."""
    done = subprocess.run(
        [sys.executable, '-c', SHARDED], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
