"""What a checkpoint gives back, and what it says where it cannot."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import toys
from tljax import initial
from tljax.checkpoints import KEEP, Checkpoints, flatten, unflatten

PARAMS = {
    'encoder': {'conv': {'kernel': jnp.arange(6.0).reshape(1, 2, 3)}},
    'head': jnp.ones((1, 2)),
}
MODEL = {
    'params': PARAMS,
    'mutable': {'bank': jnp.full((1, 3), 7, jnp.int32)},
    'best': {'score': jnp.full(1, -jnp.inf), 'params': jax.tree.map(lambda x: 2 * x, PARAMS)},
}
TRAINING = {
    'optimizers': {'model': optax.adam(0.1).init(PARAMS)},
    'half': jnp.ones(2, jnp.bfloat16),
}


def shapes(tree):
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)


def save(directory, *numbers, model=MODEL, training=TRAINING):
    checkpoints = Checkpoints(directory)
    for number in numbers:
        checkpoints.save(number, model, training, {'step': 10 * number, 'phase': 0})
    checkpoints.close()


def opened(directory):
    return Checkpoints(directory)


def test_a_round_trip_keeps_bits_types_and_structure(tmp_path):
    save(tmp_path, 1)
    model, training = opened(tmp_path).restore(1, shapes(MODEL), shapes(TRAINING))
    for found, expected in ((model, MODEL), (training, TRAINING)):
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        toys.same(flatten(found), flatten(expected))
        assert [x.dtype for x in jax.tree.leaves(found)] == [
            x.dtype for x in jax.tree.leaves(expected)
        ]


def test_names_are_readable():
    names = list(flatten({'params': PARAMS, **TRAINING}))
    assert 'params/encoder/conv/kernel' in names
    assert 'optimizers/model/0/mu/encoder/conv/kernel' in names
    assert jax.tree.structure(unflatten(flatten(MODEL), MODEL)) == jax.tree.structure(MODEL)


def test_an_item_without_leaves(tmp_path):
    save(tmp_path, 1, training={'optimizers': {}})
    _, training = opened(tmp_path).restore(1, shapes(MODEL), {'optimizers': {}})
    assert training == {'optimizers': {}}


def test_the_newest_are_kept(tmp_path):
    assert opened(tmp_path / 'none').latest() is None
    save(tmp_path, 1, 2, 5, 7)
    assert opened(tmp_path).latest() == {'step': 70, 'phase': 0, 'number': 7}
    assert sorted(int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()) == [2, 5, 7][-KEEP:]


def test_a_number_is_saved_once(tmp_path):
    save(tmp_path, 3)
    with pytest.raises(RuntimeError, match='checkpoint 3 exists already'):
        save(tmp_path, 3)


def test_a_mismatch_names_what_differs_first(tmp_path):
    save(tmp_path, 1)
    params = {'encoder': {'conv': {'kernel': jnp.ones((1, 2, 4))}}, 'hed': jnp.ones((1, 2))}
    with pytest.raises(ValueError, match='is of another model; first of 3 differences') as error:
        opened(tmp_path).restore(1, shapes({**MODEL, 'params': params}), shapes(TRAINING))
    text = str(error.value)
    assert 'params/encoder/conv/kernel: checkpoint (1, 2, 3), run (1, 2, 4)' in text
    assert 'params/hed: checkpoint absent, run (1, 2)' in text
    assert 'params/head: checkpoint (1, 2), run absent' in text


def test_another_optimizer_is_a_mismatch_too(tmp_path):
    save(tmp_path, 1)
    other = {**TRAINING, 'optimizers': {'model': optax.sgd(0.1, 0.9).init(PARAMS)}}
    with pytest.raises(
        ValueError, match=r'optimizers/model/0/trace/encoder/conv/kernel: .* absent'
    ):
        opened(tmp_path).restore(1, shapes(MODEL), shapes(other))


def test_the_model_alone(tmp_path):
    save(tmp_path, 1, 4)
    found = opened(tmp_path).restore_model()
    assert all(isinstance(leaf, np.ndarray) for leaf in found.values())
    toys.same(found, flatten(MODEL))
    with pytest.raises(ValueError, match=r'no checkpoint in .*has this run been trained'):
        opened(tmp_path / 'none').restore_model()


def damage(folder, how):
    """Truncates, or deletes, all files of a checkpoint that are larger than nothing."""
    for path in folder.rglob('*'):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:7]) if how == 'truncated' else path.unlink()


@pytest.mark.parametrize('how', ['truncated', 'emptied'])
def test_a_damaged_checkpoint_says_what_to_do(tmp_path, how):
    save(tmp_path, 1, 2)
    damage(tmp_path / '2' / 'model', how)
    message = r'checkpoint .*/2 cannot be read .*delete that folder'
    with pytest.raises(ValueError, match=message):
        opened(tmp_path).restore(2, shapes(MODEL), shapes(TRAINING))
    with pytest.raises(ValueError, match=message):
        opened(tmp_path).restore_model()
    damage(tmp_path / '2' / 'meta', how)
    with pytest.raises(ValueError, match=message):
        opened(tmp_path).latest()


def test_the_checkpoint_before_a_damaged_one_serves(tmp_path):
    """As the message says: delete the folder and go on."""
    import shutil

    save(tmp_path, 1, 2)
    shutil.rmtree(tmp_path / '2')
    assert opened(tmp_path).latest()['number'] == 1
    opened(tmp_path).restore(1, shapes(MODEL), shapes(TRAINING))
    save(tmp_path, 2)
    assert opened(tmp_path).latest()['number'] == 2


def test_what_a_run_gives_to_another_is_its_selected_state(tmp_path):
    save(tmp_path / 'best' / 'checkpoints', 1)
    params, mutable = initial.trained(tmp_path / 'best')
    toys.same(flatten(params), flatten(MODEL['best']['params']))
    assert mutable == {}
    plain = {'params': PARAMS, 'mutable': MODEL['mutable'], 'best': {}}
    save(tmp_path / 'last' / 'checkpoints', 1, model=plain)
    params, mutable = initial.trained(tmp_path / 'last')
    toys.same(flatten(params), flatten(PARAMS))
    toys.same(mutable, MODEL['mutable'])
