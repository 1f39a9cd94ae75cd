"""Discriminators that are at chance, or right throughout, for long are told; others are not."""

import json

import jax
import jax.numpy as jnp
import pytest

from tests import runs
from tests.test_methods import SETTINGS, built
from tljax import collapse, config, experiment, train
from tljax.methods import METHODS, supervised
from tljax.types import Spec

MEMBERS = [{'seed': 0}, {'seed': 1}]


def lines(*accuracies, phase='adapt', name='discriminator'):
    """Evaluations 100 steps apart, with the accuracies of both members."""
    return [
        {'step': 100 * (i + 1), 'phase': phase, 'train': {f'{name}/accuracy': list(both)}}
        for i, both in enumerate(accuracies)
    ]


def test_at_chance_in_the_last_half():
    found = collapse.warnings(lines((0.9, 0.9), (0.6, 0.8), (0.51, 0.7), (0.49, 0.8)), MEMBERS)
    assert found == [
        "the discriminator of phase 'adapt' was at chance (49.0 to 51.0 %) in the last half of the "
        'evaluations, steps 300 to 400, in 1 of 2 members (seed 0): either it cannot tell the '
        'two apart any more, or it has stopped learning'
    ]


def test_all_but_perfect_in_the_last_half():
    (found,) = collapse.warnings(lines((0.5, 0.5), (1.0, 0.995), (1.0, 0.995)), MEMBERS)
    assert 'was all but perfect (99.5 to 100.0 %)' in found
    assert 'steps 200 to 300, in 2 of 2 members (seed 0; seed 1): what it sees' in found
    alone = [{'step': s, 'phase': 'p', 'train': {'discriminator/accuracy': [1.0]}} for s in (1, 2)]
    (found,) = collapse.warnings(alone, [{'seed': 0}])
    assert '(100.0 %) in the last half of the evaluations, steps 2 to 2: what' in found


@pytest.mark.parametrize(
    'record',
    [
        lines((0.5, 0.5)),  # one evaluation is not for long
        lines((0.5, 0.5), (0.5, 0.5), (0.6, 0.6), (0.5, 0.5)),
        lines((0.5, 1.0), (1.0, 0.5), (0.5, 1.0), (1.0, 0.5)),
        lines((0.5, 0.5), (None, None), name='discriminator'),
        lines((0.5, 0.5), (0.5, 0.5), name='model'),
        lines((0.5, 0.5), (0.5, 0.5), phase='a') + lines((0.7, 0.7), (0.8, 0.8), phase='b'),
    ],
)
def test_what_is_no_collapse(record):
    found = collapse.warnings(record, MEMBERS)
    assert not [text for text in found if "phase 'b'" in text or "phase 'adapt'" in text]


def test_every_phase_and_every_discriminator_is_looked_at():
    first = lines(
        (0.5, 0.5), (0.5, 0.5), phase='pixels', name='discriminators/discriminator_source'
    )
    second = lines((0.7, 0.7), (1.0, 1.0), phase='features')
    found = collapse.warnings(first + second, MEMBERS)
    assert [text.split(' was')[0] for text in found] == [
        "the discriminator_source of phase 'pixels'",
        "the discriminator of phase 'features'",
    ]


@pytest.mark.parametrize(
    ('name', 'options', 'told'),
    [
        ('dann', {'form': 'players'}, {'discriminator'}),
        ('dann', {'form': 'reversal'}, {'discriminator'}),
        ('cdan', {'form': 'players'}, {'discriminator'}),
        ('cdan', {'form': 'reversal'}, {'discriminator'}),
        ('cdan_e', {'form': 'players'}, {'discriminator'}),
        ('cdan_e', {'form': 'reversal'}, {'discriminator'}),
        ('adda', {}, {'discriminator'}),
        ('translation', {}, {'discriminator_source', 'discriminator_target'}),
        ('cycada', {}, {'discriminator_source', 'discriminator_target', 'discriminator'}),
    ],
)
def test_every_method_tells_what_its_discriminators_get_right(name, options, told):
    """By the names that the step gives to what its players report."""
    method = built(name, options=SETTINGS.get(name, {}).get('options', {}) | options)
    image = jax.ShapeDtypeStruct((20, 8, 8, 1), jnp.uint8)
    label = jax.ShapeDtypeStruct((20,), jnp.int32)
    batch = {'source': {'image': image, 'label': label}, 'target': {'image': image}}
    hp = dict.fromkeys(
        (*config.default().hparams, 'progress'), jax.ShapeDtypeStruct((), jnp.float32)
    )
    seen = []
    for phase in method.phases:

        def metrics(batch, hp, phase=phase):
            key = jax.random.key(0)
            values = method.init(key, Spec((8, 8, 1), tuple('56789')))
            values = train.enter_phase(phase, *values, None, hp, key)
            return train.make_step(phase, *values[:2])(*values, batch, hp, jnp.uint32(0), 0)[3]

        names = jax.eval_shape(metrics, batch, hp)
        half = {name: [0.5] for name in names}
        record = [{'step': step, 'phase': phase.name, 'train': half} for step in (1, 2)]
        seen += collapse.warnings(record, [{'seed': 0}])
    assert {text.split()[1] for text in seen} == told


def blind(config, spec, optimizer):
    """Supervised learning that claims to have a discriminator at chance."""
    method = supervised.build(config, spec, optimizer)
    ((phase),) = method.phases
    (player,) = phase.players
    honest = player.loss

    def loss(*args):
        value, (metrics, mutable) = honest(*args)
        return value, ({'accuracy': 0.5 + 0 * metrics['accuracy']}, mutable)

    player = player._replace(name='discriminator', loss=loss)
    return method._replace(phases=(phase._replace(players=(player,)),))


def test_a_run_flags_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(METHODS, 'blind', blind)
    c = runs.run(method='blind', steps=4, evaluate_every=2)
    experiment.run(config.checked(c), tmp_path)
    (flag,) = json.loads((tmp_path / 'results.json').read_text())['warnings']
    assert 'was at chance (50.0 %)' in flag
    assert f'tiny: warning: {flag}' in capsys.readouterr().out.replace('\n', '')
