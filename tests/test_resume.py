"""A run that is killed or stopped, and started again, is bit for bit the uninterrupted one."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests import runs
from tljax.checkpoints import Checkpoints
from tljax.signals import STOPPED

ROOT = Path(__file__).parents[1]
# Two members, and a checkpoint every few steps, so that most moments lie in or beside a save.
OVERRIDES = ('members.rate=(0.05, 0.02)', 'steps=210', 'evaluate_every=24', 'save_every=5')


def start(workdir: Path) -> subprocess.Popen:
    flags = [f'--config.{override}' for override in OVERRIDES]
    command = [sys.executable, 'launch/train.py', '--config=tests/runs.py', f'--workdir={workdir}']
    return subprocess.Popen([*command, *flags], cwd=ROOT, stdout=-1, stderr=-1, text=True)


def wait_for(process: subprocess.Popen, ready, what: str) -> None:
    """Until `ready()`, or until the process has ended."""
    for _ in range(6000):
        if process.poll() is not None or ready():
            return
        time.sleep(0.01)
    process.kill()
    pytest.fail(f'waited a minute for {what}')


def saved(workdir: Path) -> dict[str, np.ndarray]:
    """All leaves of the newest checkpoint: parameters, statistics, optimizers, tallies."""
    checkpoints = Checkpoints(workdir / 'checkpoints')
    number = checkpoints.latest()['number']
    checkpoints.close()
    from orbax.checkpoint import StandardCheckpointer

    folder = workdir / 'checkpoints' / str(number)
    with StandardCheckpointer() as reader:
        return {
            f'{item}/{name}': np.asarray(leaf)
            for item in ('model', 'training')
            for name, leaf in reader.restore(folder / item).items()
        }


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
    """The run in one go, in this process."""
    directory = tmp_path_factory.mktemp('uninterrupted')
    assert runs.launch(directory, *OVERRIDES) == 0
    return directory


def assert_same(workdir: Path, reference: Path) -> None:
    assert runs.lines(workdir) == runs.lines(reference)
    ours, theirs = (
        {key: value for key, value in runs.results(one).items() if key != 'command'}
        for one in (workdir, reference)
    )
    assert ours == theirs
    found, expected = saved(workdir), saved(reference)
    assert set(found) == set(expected)
    assert 'model/params/encoder/hidden1/kernel' in found
    assert any(name.startswith('training/optimizers/') for name in found)
    for name, leaf in expected.items():
        np.testing.assert_array_equal(found[name], leaf, err_msg=name)


def test_killed_at_random_moments(tmp_path, uninterrupted, capsys):
    moment, killed = random.Random(0), 0
    for _ in range(2):
        process, known = start(tmp_path), set(tmp_path.glob('checkpoints/*'))
        wait_for(process, lambda: set(tmp_path.glob('checkpoints/*')) - known, 'a checkpoint')
        if not killed and process.poll() is None:
            assert runs.launch(tmp_path, *OVERRIDES) == 2
            assert 'is in use by another process; wait for it' in capsys.readouterr().err
        time.sleep(moment.uniform(0, 0.3))
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed, 'the run is too short to be killed'
    process = start(tmp_path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert 'going on from step ' in out
    assert_same(tmp_path, uninterrupted)


def test_stopped_by_signals(tmp_path, uninterrupted):
    process = start(tmp_path)  # before there is anything to save
    wait_for(process, (tmp_path / '.lock').exists, 'the directory')
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (STOPPED, 'stopped; the same command goes on\n')

    process = start(tmp_path)  # while training, and again and again while saving
    lines = tmp_path / 'metrics.jsonl'
    wait_for(process, lambda: lines.exists() and lines.read_text().count('\n') > 2, 'a line')
    for _ in range(20):
        process.terminate()
        time.sleep(0.005)
    _, err = process.communicate(timeout=60)
    assert process.returncode == STOPPED, err
    assert err.startswith('stopped at step ')
    assert err.endswith(' of 210; everything is saved\n')
    step = int(err.split()[3])

    process = start(tmp_path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert f'tiny: going on from step {step}\n' in out
    assert_same(tmp_path, uninterrupted)


def test_once_stopped_no_more_signals_are_heard():
    """Else one that came late would be told, too, or in place of what is saved."""
    code = """if True:
        import signal
        from tljax import loop, signals
        signals.exit_on_sigterm()
        with loop.terminated() as stopping:
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        print(stopping())
    """
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, 'True\n', '')


def test_a_signal_inside_a_callback_of_the_garbage_collector_stops():
    """Where Python drops what is raised, and a run went on."""
    code = """if True:
        import gc, signal
        from tljax.signals import exit_on_sigterm
        exit_on_sigterm()
        gc.callbacks.append(lambda *_: signal.raise_signal(signal.SIGTERM))
        gc.collect()
        print('went on')
    """
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    said = 'stopped; the same command goes on\n'
    assert (done.returncode, done.stdout, done.stderr) == (STOPPED, '', said)
