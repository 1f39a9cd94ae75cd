"""Published weights: reading files safely, finding them, mapping names both ways, exporting."""

import pickle

import jax
import numpy as np
import pytest
import safetensors.numpy as library

from tests import runs
from tests.nets import published
from tests.nets.published import SMALL
from tljax import partition, prepare
from tljax.nets import pretrained
from tljax.nets.heads import Linear
from tljax.nets.pretrained import files, mapping

CASE = SMALL['cifar_resnet20']


@pytest.fixture(scope='module')
def source():
    """Weights of a CIFAR ResNet-20 under the names of its source."""
    return published.weights(published.golden('cifar_resnet20')[0])


def saved(path, arrays):
    files.write(path, arrays)
    return f'file:{path}'


# Mapping


def test_parts_of_a_source_name():
    rules = {'stage{i}/block{j}/unit{k}/norm': 'layer{i}.{j-1}.bn{k}', 'head': 'fc'}
    name = lambda path: mapping.source_name(path, rules)
    assert name('encoder/stage2/block1/unit1/norm/scale') == 'layer2.0.bn1.weight'
    path = 'encoder/batch_stats/stage2/block12/unit1/norm/var'
    assert name(path) == 'layer2.11.bn1.running_var'
    assert name('head/bias') == 'fc.bias'
    assert name('head/dense1/kernel') is None
    assert mapping.source_name('encoder/conv1/kernel', {}) == 'conv1.weight'


@pytest.mark.parametrize('shape', [(3, 3, 4, 5), (4, 5)])
def test_kernels_go_both_ways(shape):
    kernel = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    theirs = mapping.to_theirs('a/kernel', kernel)
    assert theirs.shape[:2] == (5, 4)
    np.testing.assert_array_equal(mapping.to_ours('a/kernel', theirs), kernel)


def test_only_what_is_asked_for_is_taken(source, tmp_path):
    spec = saved(tmp_path / 'w.safetensors', source)
    before = published.shapes(CASE)
    params, mutable = pretrained.load(spec, CASE.net, *before, take='encoder|!encoder/stage3')
    assert not np.any(params['head']['kernel'])
    assert not np.any(params['encoder']['stage3']['block1']['unit1']['conv']['kernel'])
    assert np.all(params['encoder']['stage2']['block1']['unit1']['norm']['scale'])
    stats = mutable['encoder']['batch_stats']
    assert np.all(stats['stem']['norm']['var']) and not np.any(
        stats['stage3']['block1']['unit1']['norm']['var']
    )
    assert jax.tree.structure((params, mutable)) == jax.tree.structure(before)


def test_the_head_of_other_classes(source, tmp_path):
    spec = saved(tmp_path / 'w.safetensors', source)
    params, mutable = published.shapes(CASE)
    params['head'] = {'kernel': np.zeros((64, 3)), 'bias': np.zeros(3)}
    new, _ = pretrained.load(spec, CASE.net, params, mutable)
    assert not np.any(new['head']['kernel'])
    with pytest.raises(
        ValueError, match=r'head/bias has shape \(10,\) there, \(3,\) here; for oth'
    ):
        pretrained.load(spec, CASE.net, params, mutable, take='encoder|head')


def test_a_head_that_no_source_has_stays_as_it_is(source, tmp_path):
    spec = saved(tmp_path / 'w.safetensors', source)
    params, mutable = published.shapes(CASE)
    params['head'] = {'dense1': {'kernel': np.zeros((64, 3))}}
    pretrained.load(spec, CASE.net, params, mutable)
    with pytest.raises(ValueError, match=r'lacks head/dense1/kernel .no such thing in the source'):
        pretrained.load(spec, CASE.net, params, mutable, take='encoder|head')
    with pytest.raises(ValueError, match='no name for head/dense1/kernel'):
        pretrained.export(tmp_path / 'out.safetensors', CASE.net, params, mutable)


def test_nothing_may_be_left_over(source, tmp_path):
    values = published.shapes(CASE)
    less = {name: array for name, array in source.items() if name != 'layer1.0.bn1.bias'}
    spec = saved(tmp_path / 'less.safetensors', less)
    with pytest.raises(ValueError, match=r'lacks encoder/stage1/block1/unit1/norm/bias \(layer1.0'):
        pretrained.load(spec, CASE.net, *values)
    pretrained.load(spec, CASE.net, *values, take='encoder|!encoder/stage1/block1/unit1/norm/bias')
    spec = saved(tmp_path / 'more.safetensors', source | {'jigsaw.weight': np.ones(1)})
    with pytest.raises(ValueError, match=r'the net has not, jigsaw.weight; drop'):
        pretrained.load(spec, CASE.net, *values)
    pretrained.load(spec, CASE.net, *values, drop='jigsaw')
    with pytest.raises(ValueError, match="'jogsaw' matches no"):
        pretrained.load(spec, CASE.net, *values, drop='jogsaw')


def test_weights_of_another_net(source, tmp_path):
    spec = saved(tmp_path / 'w.safetensors', source)
    other = SMALL['vit_tiny']
    with pytest.raises(ValueError, match=r'lacks encoder/.* and .* more.*\n.*has not, .*bn1'):
        pretrained.load(spec, other.net, *published.shapes(other))


def test_auxiliary_heads_are_optional(tmp_path):
    case = SMALL['googlenet']
    spec = saved(tmp_path / 'w.safetensors', published.weights(published.golden('googlenet')[0]))
    params, mutable = published.shapes(case)
    for tree in (params, mutable):
        for role in ('aux1', 'aux2', 'head'):
            del tree[role]
    new, _ = pretrained.load(spec, case.net, params, mutable)
    assert set(new) == {'encoder'}


def test_folded_norms_are_restored(source, tmp_path):
    folded, eps = {}, 1e-5
    for name, array in source.items():
        if 'conv' in name:
            norm = name.replace('conv', 'bn').removesuffix('.weight')
            mean, var = (source[f'{norm}.running_{one}'] for one in ('mean', 'var'))
            scale = source[f'{norm}.weight'] / np.sqrt(var + eps)
            folded[name] = array * scale[:, None, None, None]
            folded[name.replace('weight', 'bias')] = source[f'{norm}.bias'] - mean * scale
        elif 'linear' in name:
            folded[name] = array
    one = published.outputs(CASE, *published.loaded(CASE, source, tmp_path))
    two = published.outputs(CASE, *published.loaded(CASE, folded, tmp_path))
    for endpoint in one:
        assert published.error(two[endpoint], one[endpoint]) < 1e-5


# Export


@pytest.mark.parametrize('name', ['mobilenet_v2', 'vgg11_bn', 'vit_tiny', 'inception_v3'])
def test_export_gives_the_same_bits(name, tmp_path):
    case = SMALL[name]
    arrays = published.weights(published.golden(name)[0])
    values = published.loaded(case, arrays, tmp_path)
    pretrained.export(tmp_path / 'out.safetensors', case.net, *values)
    again = library.load_file(tmp_path / 'out.safetensors')
    assert again.keys() == arrays.keys()
    for key in arrays:
        np.testing.assert_array_equal(again[key], arrays[key], err_msg=key)


# Files


def test_wrappers_and_counters_are_stripped(source, tmp_path):
    wrapped = {f'module.{name}': array for name, array in source.items()}
    wrapped['module.bn1.num_batches_tracked'] = np.array(3)
    np.savez(tmp_path / 'w.npz', **wrapped)
    assert files.read(tmp_path / 'w.npz').keys() == source.keys()


def test_wrappers_in_any_order_are_stripped(tmp_path):
    np.savez(tmp_path / 'w.npz', **{'_orig_mod.module.a.weight': np.ones(2)})
    assert list(files.read(tmp_path / 'w.npz')) == ['a.weight']
    np.savez(tmp_path / 'none.npz')
    assert files.read(tmp_path / 'none.npz') == {}


def test_weights_that_cannot_be_written(tmp_path):
    (tmp_path / 'folder.safetensors').mkdir()
    with pytest.raises(ValueError, match=r'folder\.safetensors cannot be written: '):
        files.write(tmp_path / 'folder.safetensors', {'a': np.ones(2, np.float32)})


def test_half_precision_becomes_float32(tmp_path):
    import ml_dtypes

    arrays = {'a.weight': np.ones((2, 3), ml_dtypes.bfloat16), 'b': np.ones(2, np.float16)}
    files.write(tmp_path / 'w.safetensors', arrays)
    read = files.read(tmp_path / 'w.safetensors')
    assert mapping.to_ours('a/kernel', read['a.weight']).dtype == np.float32
    assert mapping.to_ours('b', read['b']).dtype == np.float32


@pytest.mark.parametrize(
    'name, content, message',
    [
        ('none.npz', None, 'no such file'),
        ('w.h5', b'abc', r'weight files end in \.safetensors'),
        ('w.safetensors', b'abc', 'damaged'),
        ('w.npz', b'abc', 'not an .npz'),
        ('w.pth', b'abc', 'not a PyTorch checkpoint'),
        ('w.pth', b'', 'not a PyTorch checkpoint'),
        ('w.pth', pickle.dumps(3, protocol=2), 'not a PyTorch checkpoint'),
    ],
)
def test_a_bad_file_is_named(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf'{name}: .*{message}|{name}: {message}'):
        files.read(tmp_path / name)


# From a config


def test_a_config_starts_from_published_weights(tmp_path):
    first = prepare.prepare(runs.run(**{'seed': 5}))
    params, mutable = jax.tree.map(lambda leaf: leaf[0], first.values)
    c = runs.run()
    spec = tmp_path / 'w.safetensors'
    pretrained.export(spec, prepare.encoder(c), params, mutable)
    c.init['from'] = f'file:{spec}'
    c.members.seed = (0, 1)
    values = partition.flat(prepare.prepare(c).values[0])
    for path, leaf in partition.flat(params).items():
        if path.startswith('encoder/'):
            for member in (0, 1):
                np.testing.assert_array_equal(values[path][member], leaf)
    assert np.any(values['head/kernel'][0] != values['head/kernel'][1])
    c.net.widths = (25,)
    with pytest.raises(
        ValueError, match=r'dense/kernel has shape \(24, 16\) there, \(25, 16\) here'
    ):
        prepare.prepare(c)


def test_linear_head_is_the_sources_classifier(source, tmp_path):
    params, _ = published.loaded(CASE, source, tmp_path)
    logits = Linear(10).apply({'params': params['head']}, np.ones((1, 64), np.float32))
    expected = source['linear.weight'].sum(1) + source['linear.bias']
    np.testing.assert_allclose(logits[0], expected, rtol=1e-5, atol=1e-5)
