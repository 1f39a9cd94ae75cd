"""Slices of backbones, and the declared input."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.nets.published import SMALL as PUBLISHED
from tljax.methods.networks import check_images
from tljax.nets import BACKBONES, HEADS, Input, build_backbone, build_head
from tljax.nets.backbone import run
from tljax.partition import LIVE

KOCH = {'widths': (2, 3, 3, 4), 'kernels': (3, 3, 2, 2), 'padding': 'SAME', 'dense': 5}

SMALL = {
    'identity': (build_backbone('identity', power=0.5, unit=True), (4, 4, 1)),
    'conv4': (build_backbone('conv4', widths=(3, 4, 4, 5)), (16, 16, 1)),
    'koch': (build_backbone('koch', **KOCH), (8, 8, 1)),
    'lenet': (build_backbone('lenet', widths=(3, 4), kernel=3, dense=5, padding='SAME'), (8, 8, 1)),
    'lenet_norm': (build_backbone('lenet', widths=(3, 4), dense=5, norm=True), (20, 20, 1)),
    'mlp': (build_backbone('mlp', widths=(6, 7), dense=5, dropout=0.5), (4, 4, 1)),
    'resnet': (build_backbone('resnet', widths=(2, 4), blocks=1, drop_path=0.5), (8, 8, 3)),
}


def test_small_nets_cover_the_table():
    covered = {type(net) for net, _ in SMALL.values()}
    published = {type(case.net) for case in PUBLISHED.values()}
    assert covered | published == set(BACKBONES.values())


@pytest.mark.parametrize('name', SMALL)
def test_any_cut_equals_the_uncached_run(name):
    net, shape = SMALL[name]
    x = jax.random.normal(jax.random.key(0), (2, *shape))
    variables = jax.jit(net.init)(jax.random.key(1), x)
    # One compilation for all cuts: each slice starts from the one run's own outputs.
    pairs = [(a, b) for i, a in enumerate(net.endpoints) for b in net.endpoints[i:]]

    @jax.jit
    def both(variables, x):
        whole = net.apply(variables, x, until=net.endpoints)
        cuts = [net.apply(variables, whole[a], since=a, until=b) for a, b in pairs]
        return whole, cuts

    whole, cuts = both(variables, x)
    assert set(whole) == set(net.endpoints)
    for (_, until), cut in zip(pairs, cuts, strict=True):
        np.testing.assert_allclose(cut, whole[until], rtol=1e-6, atol=1e-6)
    assert whole['features'].ndim == 2


def test_koch_has_the_shapes_of_its_paper():
    """Koch et al. 2015, figure 4."""
    net, x = build_backbone('koch'), jax.ShapeDtypeStruct((1, 105, 105, 1), jnp.float32)
    whole = lambda x: net.init_with_output(jax.random.key(0), x, until=net.endpoints)[0]
    shapes = [found.shape[1:] for found in jax.eval_shape(whole, x).values()]
    assert shapes == [(48, 48, 64), (21, 21, 128), (9, 9, 128), (6, 6, 256), (4096,)]


def test_dropout_of_lenet_stands_before_the_dense_layer():
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    options = {'widths': (3, 4), 'kernel': 3, 'dense': 200, 'padding': 'SAME'}
    plain, net = (build_backbone('lenet', **options, dropout=rate) for rate in (0.0, 0.5))
    variables = net.init(jax.random.key(1), x)
    rngs = {'dropout': jax.random.key(2)}
    found, _ = net.apply(variables, x, until=net.endpoints, rngs=rngs, mutable=[LIVE])
    expected = plain.apply({'params': variables['params']}, x, until=net.endpoints)
    np.testing.assert_array_equal(found['conv2'], expected['conv2'])
    assert np.abs(found['features'] - expected['features']).max() > 0.01


def test_a_slice_makes_only_its_own_parameters():
    net, shape = SMALL['lenet']
    params = jax.eval_shape(
        lambda key, x: net.init(key, x, until='conv1')['params'],
        jax.random.key(0),
        jnp.ones((1, *shape)),
    )
    assert set(params) == {'conv1'}


def test_layers_have_readable_paths():
    net, shape = SMALL['resnet']
    variables = jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, *shape)))
    paths = {
        jax.tree_util.keystr(p, simple=True, separator='/')
        for p, _ in jax.tree.leaves_with_path(variables)
    }
    assert 'params/stage2/block1/conv1/kernel' in paths
    assert 'params/stage2/block1/shortcut_conv/kernel' in paths
    assert 'batch_stats/stage2/block1/norm1/mean' in paths


STAGES = {'stem': lambda x: x + 1, 'stage1': lambda x: 2 * x, 'features': lambda x: x**2}


def test_run():
    assert run(STAGES, 1.0) == 16
    assert run(STAGES, 1.0, until='stage1') == 4
    assert run(STAGES, 4.0, since='stage1') == 16
    assert run(STAGES, 4.0, since='stage1', until='stage1') == 4
    assert run(STAGES, 1.0, until=('features', 'stem')) == {'features': 16, 'stem': 2}
    assert run(STAGES, 2.0, 'stem', ('stem', 'stage1')) == {'stem': 2, 'stage1': 4}


@pytest.mark.parametrize(
    'since, until, message',
    [
        (None, 'stage2', "unknown endpoint 'stage2'.*stem, stage1, features.*mean 'stage1'"),
        ('sten', 'features', "unknown endpoint 'sten'.*mean 'stem'"),
        ('stage1', 'stem', "'stem' comes before 'stage1'"),
        ('stage1', ('features', 'stem'), "'stem' comes before 'stage1'"),
        (None, (), 'no endpoint'),
    ],
)
def test_run_explains_what_it_refuses(since, until, message):
    with pytest.raises(ValueError, match=message):
        run(STAGES, 1.0, since, until)


@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('output_stride', [8, 16])
def test_dilations_give_at_every_other_pixel_what_strides_give(depth, output_stride):
    """By the same parameters; and between them something else."""
    nets = [
        build_backbone('imagenet_resnet', depth=depth, output_stride=n) for n in (32, output_stride)
    ]
    x = jax.random.normal(jax.random.key(0), (1, 64, 64, 3))
    variables = nets[0].init(jax.random.key(1), x)
    maps = [jax.jit(partial(net.apply, until=('stage3', 'stage4')))(variables, x) for net in nets]
    for name, side in (('stage3', 4), ('stage4', 2)):
        strided, dilated = (found[name] for found in maps)
        step = dilated.shape[1] // side
        assert step == max(1, 64 // side // output_stride)
        np.testing.assert_allclose(dilated[:, ::step, ::step], strided, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match='output_stride is 4; expected 8, 16 or 32'):
        build_backbone('imagenet_resnet', output_stride=4).init(jax.random.key(0), x)


@pytest.mark.parametrize(
    ('net', 'side', 'message'),
    [
        (
            build_backbone('inception_v3'),
            64,
            r'images \[64, 64, 3\] are too small for InceptionV3: ',
        ),
        (build_backbone('inception_v3'), 32, 'cannot be made for images|are too small'),
        (build_backbone('googlenet'), 8, 'are too small for GoogLeNet: its mixed4a is '),
        (build_backbone('vit', size='tiny', blocks=1), 8, r'smaller than a patch of 16'),
        (build_backbone('lenet'), 8, 'are too small for LeNet: its conv2 is |cannot be made'),
    ],
)
def test_images_that_leave_nothing_are_refused(net, side, message):
    with pytest.raises(ValueError, match=message):
        check_images(net, (side, side, net.input.channels))


def test_images_just_large_enough_are_taken():
    check_images(build_backbone('lenet'), (16, 16, 1))
    check_images(build_backbone('inception_v3'), (75, 75, 3), 'mixed5b')


def test_normalise():
    spec = Input(size=2, channels=3, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    bytes_ = np.arange(2 * 2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 2, 3)
    expected = (bytes_ / 255.0 - np.array(spec.mean)) / np.array(spec.std)
    for image in (bytes_, (bytes_ / 255.0).astype(np.float32)):
        found = spec.normalise(image)
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(Input(channels=1).normalise(np.full((1, 1, 1), 0.5)), 0)
    with pytest.raises(ValueError, match='3 channels'):
        spec.normalise(np.zeros((2, 2, 1)))


def test_backbones_declare_their_input():
    assert build_backbone('lenet').input.channels == 1
    own = Input(16, 4)
    assert build_backbone('resnet', input=own).input == own


def test_tables_explain_what_they_refuse():
    for build in (build_backbone, lambda name, **options: build_head(name, 3, **options)):
        with pytest.raises(ValueError, match=r"'linaer'.*mlp"):
            build('linaer')
        with pytest.raises(ValueError, match=r"option of .* 'mlp' 'widhts'.*widths.*mean 'widths'"):
            build('mlp', widhts=(3,))
    with pytest.raises(ValueError, match='unknown option'):
        build_head('linear', 3, parent=None)
    assert all(isinstance(build_head(name, 3), nn.Module) for name in HEADS)
