"""What benchmark.py measures in a process of its own: the first step, and memory."""

import ctypes
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

from benchmark_steps import LOOPS, STEPS


def child(what: str, side: str, name: str, cache: str, how) -> str:
    """What a process of its own prints, which keeps compiled programs in a folder."""
    environment = os.environ | {
        'JAX_COMPILATION_CACHE_DIR': cache,
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    }
    script = str(Path(__file__).with_name('benchmark.py'))
    flags = [f'--{flag}' for flag in ('bfloat16', 'compile') if getattr(how, flag)]
    command = [sys.executable, script, *flags, '--child', what, side, name]
    return subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE).stdout


def one_step(side: str, name: str, how) -> None:
    LOOPS[side](STEPS[name], how)(1)


def memory(side: str, name: str, how) -> None:
    """Prints the most MiB that the process holds while it steps, above those after its imports."""
    importlib.import_module(f'benchmark_{side}').ready()
    before = resident('VmRSS')
    step = LOOPS[side](STEPS[name], how)
    step(2)
    ctypes.CDLL(None).malloc_trim(0)  # what building left behind is not the steps'
    Path('/proc/self/clear_refs').write_text('5')  # the peak begins anew
    step(5)
    print(resident('VmHWM') - before)


def resident(which: str) -> float:
    """MiB of this process: 'VmRSS' now, or 'VmHWM' at most."""
    status = Path('/proc/self/status').read_text()
    return int(re.search(rf'{which}:\s+(\d+)', status)[1]) / 1024


CHILDREN = {'step': one_step, 'memory': memory}
