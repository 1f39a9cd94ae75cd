"""launch/export.py: what a run has learnt, in its source's layout and back."""

import jax
import numpy as np
import pytest

from launch import export
from tests import runs
from tljax import backbones, experiment, initial
from tljax import config as configs
from tljax.methods.networks import encoder
from tljax.nets import pretrained
from tljax.nets.pretrained import files

VGG = {'name': 'vgg', 'depth': 11, 'norm': True, 'width': 2, 'dense': 4, 'grid': 1}
VGG['input'] = {'size': 32}


def test_round_trip_in_the_sources_layout(tmp_path, capsys):
    """Parameters, statistics and classifier of one member come back bit by bit."""
    run, out = tmp_path / 'run', tmp_path / 'out.safetensors'
    c = configs.checked(runs.run(net=VGG, steps=1, evaluate_every=0))
    c.data.evaluate.test.sample, c.members.seed = 20, (0, 1)
    experiment.run(c, run)
    assert export.main([f'--run={run}', f'--out={out}', '--member=1']) == 0
    assert capsys.readouterr().out.endswith(f'{out}: encoder, head\n')
    assert {'features.0.weight', 'features.1.running_var', 'classifier.6.bias'} < set(
        files.read(out)
    )
    params, mutable = jax.tree.map(lambda leaf: leaf[1], initial.trained(run))
    blank = jax.tree.map(np.zeros_like, (params, mutable))
    found = pretrained.load(f'file:{out}', encoder(c), *blank, take='encoder|head')
    jax.tree.map(np.testing.assert_array_equal, found, (params, mutable))


def test_a_net_that_is_published_nowhere_keeps_its_names(tiny_study, tmp_path, capsys):
    """Of a run on cached activations the frozen layers too."""
    run, out = tiny_study / 'frozen', tmp_path / 'out.safetensors'
    assert export.main([f'--run={run}', f'--out={out}', '--member=3']) == 0
    assert set(files.read(out)) > {'hidden1.weight', 'dense.bias', 'head.weight'}
    net = encoder(runs.run())
    ours, theirs = (
        backbones.values(weights, net, (8, 8, 1), member=3) for weights in (f'file:{out}', str(run))
    )
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_what_is_no_classifier_of_the_features_is_left_out(tmp_path, capsys):
    run, out = tmp_path / 'run', tmp_path / 'out.safetensors'
    experiment.run(configs.checked(runs.run(endpoint='hidden1', steps=1, evaluate_every=0)), run)
    assert export.main([f'--run={run}', f'--out={out}']) == 0
    assert capsys.readouterr().out.endswith(f'{out}: encoder; left out: head\n')
    assert set(files.read(out)) == {'hidden1.weight', 'hidden1.bias'}


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'member': None}, 'members 0..3, which differ in seed, labels_per_class: choose one by'),
        ({'member': 4}, 'member 4: .* has the members 0..3'),
        ({'run': '{study}'}, 'holds several runs; choose one'),
        ({'run': '{tmp}'}, 'is not a run directory: it has no config.json'),
        ({'out': '{tmp}/there.safetensors'}, 'there.safetensors is there already; choose another'),
        ({'out': '{tmp}/none/out.safetensors'}, 'cannot be: there is no such folder; choose'),
        ({'out': '{tmp}/out.pth'}, 'exported to a file that ends in .safetensors'),
    ],
)
def test_bad_input(tiny_study, tmp_path, capsys, changes, message):
    (tmp_path / 'there.safetensors').touch()
    given = {'run': '{study}/scratch', 'out': '{tmp}/out.safetensors', 'member': 0} | changes
    flags = [f'--{key}={value}' for key, value in given.items() if value is not None]
    assert export.main([flag.format(study=tiny_study, tmp=tmp_path) for flag in flags]) == 2
    with pytest.raises(ValueError, match=message):
        raise ValueError(capsys.readouterr().err)


def test_a_run_that_is_not_finished(tmp_path, capsys):
    (tmp_path / 'config.json').write_text('{}')
    assert export.main([f'--run={tmp_path}', f'--out={tmp_path}/out.safetensors']) == 2
    assert 'is not finished: it has no results.json' in capsys.readouterr().err


def test_a_run_without_layers(tmp_path, capsys):
    net = {'name': 'identity', 'input': {'size': 8, 'channels': 1}}
    c = configs.checked(runs.run(net=net, trains='head', steps=1, evaluate_every=0))
    experiment.run(c, tmp_path / 'run')
    assert export.main([f'--run={tmp_path}/run', f'--out={tmp_path}/out.safetensors']) == 2
    assert 'its net, identity, has no layers to export' in capsys.readouterr().err
