"""Speed of training steps, ours beside eager PyTorch in one run.

    python launch/benchmark.py                                    # all cases
    python launch/benchmark.py lenet_dann_step --rounds 15 --out benchmark.json

Both sides train the same net on the same batches with the same optimizer. Rounds of the two
alternate, so that what else the machine does falls on both; the ratio is the median over rounds.
PyTorch is an extra: `pip install 'tljax[torch]'`.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

BATCH, POOL, RATE, MOMENTUM = 128, 8, 0.01, 0.9


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('cases', nargs='*', help=f'of {", ".join(CASES)}; all if none is named')
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--steps', type=int, default=10, help='per round')
    parser.add_argument('--out', type=Path, help='a JSON file for the table')
    parser.add_argument('--child', choices=sorted(LOOPS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        LOOPS[args.child]('supervised')(1)
        return
    if wrong := set(args.cases) - set(CASES):
        parser.error(f'unknown case {", ".join(sorted(wrong))}: there are {", ".join(CASES)}')
    try:
        import torch
    except ImportError:
        sys.exit("PyTorch is missing: pip install 'tljax[torch]'")
    rows = []
    print(HEADER)
    for case in args.cases or CASES:
        for row in CASES[case](args):
            rows.append(row)
            print(line(row), flush=True)
    if args.out:
        import jax

        versions = {'jax': jax.__version__, 'torch': torch.__version__}
        machine = {'cores': os.cpu_count(), 'processor': platform.processor(), **versions}
        args.out.write_text(json.dumps({'machine': machine, 'rows': rows}, indent=2) + '\n')


HEADER = f'{"case":18} {"ours, ms":>10} {"torch, ms":>10} {"ratio":>6} {"spread of the ratio":>20}'


def line(row: dict) -> str:
    low, high = row['spread']
    return (
        f'{row["case"]:18} {row["ours_ms"]:10.1f} {row["torch_ms"]:10.1f} '
        f'{row["ratio"]:6.2f} {low:13.2f} - {high:.2f}'
    )


def compare(case: str, ours, theirs, rounds: int, per_call: int = 1) -> dict:
    """Times two functions in turn. `ratio` is their time over ours: above 1 we are faster."""
    times = {'ours': [], 'torch': []}
    for _ in range(rounds):
        for name, call in (('ours', ours), ('torch', theirs)):
            start = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - start) / per_call * 1e3)
    ratios = sorted(b / a for a, b in zip(times['ours'], times['torch'], strict=True))
    quarter = len(ratios) // 4
    return {
        'case': case,
        'ours_ms': statistics.median(times['ours']),
        'torch_ms': statistics.median(times['torch']),
        'ratio': statistics.median(ratios),
        'spread': [ratios[quarter], ratios[-1 - quarter]],  # the middle half
        'rounds': times,
    }


def step_case(case: str, kind: str):
    """A case that times steps of one kind, compiled beforehand on our side."""

    def run(args) -> list[dict]:
        ours, theirs = LOOPS['jax'](kind), LOOPS['torch'](kind)
        ours(1), theirs(1)
        calls = [lambda: ours(args.steps), lambda: theirs(args.steps)]
        return [compare(case, *calls, args.rounds, args.steps)]

    return run


def first_step(args) -> list[dict]:
    """From the start of a process to the end of its first step, without and with a cache."""

    def child(side: str, cache: str):
        environment = os.environ | {
            'JAX_COMPILATION_CACHE_DIR': cache,
            'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        }
        subprocess.run([sys.executable, __file__, '--child', side], check=True, env=environment)

    def cold():
        with tempfile.TemporaryDirectory() as empty:
            child('jax', empty)

    rounds = max(1, args.rounds // 3)
    with tempfile.TemporaryDirectory() as cache:
        child('jax', cache)
        theirs = lambda: child('torch', cache)
        return [
            compare('first_step, cold', cold, theirs, rounds),
            compare('first_step, cached', lambda: child('jax', cache), theirs, rounds),
        ]


def batches() -> dict[str, np.ndarray]:
    """POOL batches of noise in place of digits: the speed is the same."""
    rng = np.random.default_rng(0)
    images = rng.random((2, POOL, BATCH, 28, 28, 1), np.float32)
    labels = rng.integers(0, 10, (POOL, BATCH), np.int32)
    return {'image': images[0], 'target': images[1], 'label': labels}


def torch_loop(kind: str):
    from benchmark_torch import loop

    return loop(kind, batches(), RATE, MOMENTUM)


def jax_loop(kind: str):
    """The same, as steps of a run."""
    from benchmark_jax import loop

    noise = batches()
    images = np.concatenate([noise['image'], noise['target']]).reshape(-1, 28, 28, 1)
    labels = np.tile(noise['label'].ravel(), 2)
    return loop(kind, (images * 255).astype(np.uint8), labels, BATCH, RATE, MOMENTUM)


LOOPS = {'jax': jax_loop, 'torch': torch_loop}
CASES = {
    'lenet_step': step_case('lenet_step', 'supervised'),
    'lenet_dann_step': step_case('lenet_dann_step', 'dann'),
    'first_step': first_step,
}

if __name__ == '__main__':
    main()
