"""Shared fixtures, and a compilation cache that outlives a run."""

import os
from pathlib import Path

import jax
import pytest

CACHE = os.environ.get('JAX_COMPILATION_CACHE_DIR') or Path('~/.cache/tljax/xla').expanduser()
jax.config.update('jax_compilation_cache_dir', str(CACHE))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)


@pytest.fixture(scope='session')
def data_root() -> Path:
    """The folder of real data sets; tests that ask for it skip where it is absent."""
    default = Path(__file__).parents[1] / '..' / 'shared' / 'data'
    root = Path(os.environ.get('TLJAX_DATA') or default).resolve()
    if not root.is_dir():
        pytest.skip(f'no real data at {root}: set TLJAX_DATA to a folder that has it')
    return root


@pytest.fixture(scope='session')
def tiny_study(tmp_path_factory) -> Path:
    """The directory of a finished study: pretrain, scratch, frozen and fine_tuned; read only."""
    from tests import runs  # imports jax and more, which collecting need not wait for

    directory = tmp_path_factory.mktemp('runs') / 'study'
    assert runs.launch(directory, config='tests/runs.py:study') == 0
    return directory
