"""Eight devices are one: global batch statistics and losses, sharded parameters, exact counts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tests import toys
from tests.conftest import CACHE
from tljax import sharding


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    """What `tests.eight` finds on eight simulated devices."""
    out = tmp_path_factory.mktemp('eight')
    changes = {
        'JAX_NUM_CPU_DEVICES': '8',
        'JAX_PLATFORMS': 'cpu',
        'JAX_COMPILATION_CACHE_DIR': str(CACHE),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.2',
    }
    done = subprocess.run(
        [sys.executable, '-m', 'tests.eight', str(out)],
        cwd=Path(__file__).parents[1],
        env=os.environ | changes,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    arrays = {path.stem: dict(np.load(path)) for path in out.glob('*.npz')}
    return json.loads((out / 'found.json').read_text()) | {'arrays': arrays}


@pytest.mark.parametrize('other', ['eight', 'fsdp', 'fed'])
def test_devices_change_nothing_but_rounding(found, other):
    """Norms, dropout and MMD see the global batch; draws are equal bit for bit."""
    one, more = found['arrays']['one'], found['arrays'][other]
    np.testing.assert_array_equal(one['mutable/notes'], more['mutable/notes'])
    assert len(set(one['mutable/notes'].ravel())) == 40
    toys.close(more, one, 1e-4)
    assert found[other]['mmd'] == pytest.approx(found['one']['mmd'], rel=1e-5)
    assert found['one']['mmd'][0] > 0.01


def test_fsdp_splits_large_leaves(found):
    assert 'data' in found['fsdp']['kernel']
    assert 'data' not in found['eight']['kernel']
    toys.close(found['arrays']['fsdp'], found['arrays']['eight'], 1e-5)


def test_members_on_eight_devices(found):
    first = {name: leaf[:1] for name, leaf in found['arrays']['members'].items()}
    toys.close(first, found['arrays']['one'], 1e-4)
    assert found['members']['mmd'][0] != found['members']['mmd'][1]


def test_a_run_moves_from_eight_devices_to_one(found):
    toys.close(found['arrays']['moved'], found['arrays']['one'], 1e-4)


@pytest.mark.parametrize('count', ['13', '97'])
def test_evaluation_counts_are_exact(found, count):
    scores = found['scores'][count]
    for devices in ('1', '3', '8'):
        assert scores[devices]['count'] == int(count)
        assert scores[devices]['confusion'] == scores['1']['confusion']
        for member in scores[devices]['confusion']:
            rows = [sum(row) for row in member]
            assert rows == [-(-(int(count) - c) // 3) for c in range(3)]


def test_a_batch_that_does_not_divide_is_refused(found):
    assert "'source': batch 25 does not divide over 8 devices" in found['refused']
    assert '24 or 32' in found['refused']
    sharding.check_batch(24, 8, 's')
    with pytest.raises(ValueError, match=r"'s': batch 5 .* nearest that do: 8$"):
        sharding.check_batch(5, 8, 's')


def test_more_devices_than_there_are():
    with pytest.raises(ValueError, match='devices=4096 asked for, but there are'):
        sharding.mesh(4096)


def test_which_leaves_fsdp_splits():
    mesh = jax.sharding.AbstractMesh((4,), ('data',))
    shapes = {
        'both': (2, 128, 256),
        'first': (2, 256, 129),
        'small': (2, 8, 8),
        'odd': (2, 129, 129),
        'scalar': (2,),
    }
    tree = {k: jax.ShapeDtypeStruct(v, np.float32) for k, v in shapes.items()}
    specs = {k: tuple(v.spec) for k, v in sharding.parameters(mesh, tree, 'fsdp').items()}
    assert specs == {
        'both': (None, None, 'data'),
        'first': (None, 'data'),
        'small': (),
        'odd': (),
        'scalar': (),
    }
    assert not any(s.spec for s in sharding.parameters(mesh, tree, 'replicated').values())


def test_unknown_sharding():
    with pytest.raises(ValueError, match="'replicated' and 'fsdp'"):
        sharding.parameters(sharding.mesh(1), {}, 'zero')
