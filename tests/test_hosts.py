"""Two processes of one run are one: the same numbers, files of one writer, stopped as one."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests import runs
from tests.conftest import CACHE
from tljax import hosts

ROOT = Path(__file__).parents[1]


def begun(workdir: Path) -> list[subprocess.Popen]:
    """Both processes of a run, as a launcher starts them."""
    with socket.socket() as free:
        free.bind(('localhost', 0))
        address = f'localhost:{free.getsockname()[1]}'
    config = f'--config={ROOT / "tests/runs.py"}:hosts'
    command = [sys.executable, 'launch/train.py', config, f'--workdir={workdir}']
    changes = {
        'JAX_PLATFORMS': 'cpu',
        'JAX_NUM_PROCESSES': '2',
        'JAX_COORDINATOR_ADDRESS': address,
        'JAX_COMPILATION_CACHE_DIR': str(CACHE),
    }
    return [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | changes | {'JAX_PROCESS_ID': str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]


def ended(processes: list[subprocess.Popen]) -> tuple[list[int], list[str]]:
    """Exit codes, and what each said."""
    try:
        said = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], said


@pytest.fixture(scope='module')
def together(tmp_path_factory):
    """The run directory of two processes, of which one was stopped, and what they said."""
    workdir = tmp_path_factory.mktemp('hosts') / 'run'
    first = begun(workdir)
    metrics, limit = workdir / 'memory' / 'metrics.jsonl', time.monotonic() + 240
    while not (metrics.exists() and metrics.read_text()) and time.monotonic() < limit:
        assert all(process.poll() is None for process in first), ended(first)[1]
        time.sleep(0.05)
    first[1].send_signal(signal.SIGTERM)
    return workdir, ended(first), ended(begun(workdir))


@pytest.mark.parametrize(
    ('environment', 'tpu', 'joins'),
    [
        ({}, False, False),
        ({'SLURM_NTASKS': '2', 'SLURM_PROCID': '0'}, False, False),  # a batch script
        ({'SLURM_NTASKS': '1', 'SLURM_STEP_NODELIST': 'a'}, False, False),
        ({'SLURM_NTASKS': '2', 'SLURM_STEP_NODELIST': 'a[1-2]'}, False, True),
        ({}, True, True),
        ({'JAX_PLATFORMS': 'cpu'}, True, False),
    ],
)
def test_launchers_are_recognised(monkeypatch, environment, tpu, joins):
    for name in [one for one in os.environ if one.startswith(('SLURM_', 'JAX_'))]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    asked = []
    monkeypatch.setattr(hosts.importlib.util, 'find_spec', lambda name: tpu or None)
    monkeypatch.setattr(hosts.jax.distributed, 'initialize', lambda: asked.append(1))
    hosts.start()
    assert len(asked) == joins


def test_a_tpu_without_a_cluster_is_one_host_and_slurm_has_to_find_one(monkeypatch):
    def nobody():
        raise ValueError('coordinator_address should be defined.')

    for name in [one for one in os.environ if one.startswith(('SLURM_', 'JAX_'))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(hosts.importlib.util, 'find_spec', lambda name: True)
    monkeypatch.setattr(hosts.jax.distributed, 'initialize', nobody)
    hosts.start()
    monkeypatch.setenv('SLURM_NTASKS', '2')
    monkeypatch.setenv('SLURM_STEP_NODELIST', 'a[1-2]')
    with pytest.raises(ValueError, match='coordinator_address'):
        hosts.start()


def test_a_signal_to_one_stops_both_and_they_go_on(together):
    _, (stopped, _), (codes, said) = together
    assert stopped == [75, 75], together[1][1]
    assert codes == [0, 0], said
    assert 'report: ' in said[0]
    assert 'accuracy' not in said[1]


def test_two_hosts_are_one(together, tmp_path):
    assert runs.launch(tmp_path / 'alone', config='tests/runs.py:hosts') == 0
    for arm in ('memory', 'decoded'):
        ours, alone = (place / arm for place in (together[0], tmp_path / 'alone'))
        lines, wanted = runs.lines(ours), runs.lines(alone)
        assert [line['step'] for line in lines] == [line['step'] for line in wanted]
        for line, other in zip(lines, wanted, strict=True):
            np.testing.assert_allclose(line['test']['loss'], other['test']['loss'], rtol=1e-3)
        found, results = runs.results(ours), runs.results(alone)
        assert found['step'] == results['step']
        assert found['environment']['devices'] == 2
        for name in ('accuracy', 'loss'):
            wanted = results['scores']['test'][name]
            np.testing.assert_allclose(found['scores']['test'][name], wanted, rtol=1e-3)
    assert (together[0] / 'report.html').exists()
    assert not list(together[0].rglob('*.tmp'))
