"""Speed beside others: training steps, features and probes.

    python launch/benchmark.py                                    # all cases
    python launch/benchmark.py lenet_dann_step --rounds 15 --out benchmark.json

Both sides do the same work on the same data: nets, batches and optimizers of training steps are
alike, and so are the features and labels of probes. PyTorch is eager, its memory channels-last.
Rounds of the two alternate, so that what else the machine does falls on both; the ratio is the
median over rounds. With --out a file that exists keeps the rows of other cases. Where the machine
is not idle, threads that wait for each other make the comparison meaningless: give it one core,

    OMP_NUM_THREADS=1 taskset -c 0 python launch/benchmark.py

PyTorch is an extra: `pip install 'tljax[torch]'`.
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

POOL, RATE, MOMENTUM = 4, 0.01, 0.9


class Steps(NamedTuple):
    """Training steps of one kind."""

    net: Mapping[str, Any]  # as config.net
    method: str = 'supervised'
    trains: str = 'encoder|head'
    batch: int = 128  # of each domain
    image: tuple[int, int, int] = (28, 28, 1)
    seeds: int = 1  # members of one program, beside loops one after the other
    loop: bool = True  # many steps a compiled call
    steps: int = 1000  # of the schedules


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
        LOOPS[args.child](STEPS['lenet_step'])(1)
        return
    if wrong := set(args.cases) - set(CASES):
        parser.error(f'unknown case {", ".join(sorted(wrong))}: there are {", ".join(CASES)}')
    if not importlib.util.find_spec('torch'):
        sys.exit("PyTorch is missing: pip install 'tljax[torch]'")
    rows = []
    print(HEADER)
    for case in args.cases or CASES:
        for row in CASES[case](args):
            rows.append(row)
            print(line(row), flush=True)
        if args.out:
            write(args.out, rows)


def write(path: Path, rows: list[dict]) -> None:
    """The rows as JSON, after those of other cases that are there already, in the table's order."""
    import jax
    import sklearn
    import torch

    versions = {module.__name__: module.__version__ for module in (jax, torch, sklearn)}
    if path.exists():
        ours = {row['case'] for row in rows}
        rows = [
            row for row in json.loads(path.read_text())['rows'] if row['case'] not in ours
        ] + rows
    machine = {'processor': platform.processor(), **versions}
    rows = sorted(rows, key=lambda row: list(CASES).index(row['case'].partition(',')[0]))
    path.write_text(json.dumps({'machine': machine, 'rows': rows}, indent=2) + '\n')


def cores() -> int:
    """Those this process may run on."""
    return len(os.sched_getaffinity(0))


HEADER = f'{"case":36} {"ours, ms":>10} {"theirs, ms":>10} {"ratio":>6} {"spread of the ratio":>20}'


def line(row: dict) -> str:
    low, high = row['spread']
    return (
        f'{row["case"]:36} {row["ours_ms"]:10.1f} {row["theirs_ms"]:10.1f} '
        f'{row["ratio"]:6.2f} {low:13.2f} - {high:.2f}'
    )


def compare(
    case: str, ours, theirs, rounds: int, per_call: int = 1, against: str = 'PyTorch', **notes
) -> dict:
    """Times two functions in turn. `ratio` is their time over ours: above 1 we are faster."""
    times = {'ours': [], 'theirs': []}
    for _ in range(rounds):
        for name, call in (('ours', ours), ('theirs', theirs)):
            start = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - start) / per_call * 1e3)
    ratios = sorted(b / a for a, b in zip(times['ours'], times['theirs'], strict=True))
    quarter = len(ratios) // 4
    return {
        'case': case,
        'against': against,
        'cores': cores(),
        'ours_ms': statistics.median(times['ours']),
        'theirs_ms': statistics.median(times['theirs']),
        'ratio': statistics.median(ratios),
        'spread': [ratios[quarter], ratios[-1 - quarter]],  # the middle half
        **notes,
        'rounds': times,
    }


def step_case(case: str):
    """A case that times the steps of that name, compiled beforehand on our side."""

    def run(args) -> list[dict]:
        ours, theirs = (make(STEPS[case]) for make in LOOPS.values())
        ours(1), theirs(1)
        # Long steps need no ten of them for the clock.
        steps = min(args.steps, max(1, round(args.steps * 2e5 / work(STEPS[case]))))
        calls = [lambda: ours(steps), lambda: theirs(steps)]
        return [compare(case, *calls, args.rounds, steps)]

    return run


def work(job: Steps) -> int:
    """Pixels of a step."""
    return job.batch * job.seeds * job.image[0] * job.image[1]


def seeds(args) -> list[dict]:
    """All seeds as members of one program: beside PyTorch, and beside runs of our own."""
    job = STEPS['lenet_dann_5_seeds']
    ours, theirs, alone = jax_loop(job), torch_loop(job), jax_loop(job._replace(seeds=1))
    for one in (ours, theirs, alone):
        one(1)
    count = max(1, args.steps // job.seeds)
    member = lambda: ours(count)
    one_by_one = lambda: [alone(count) for _ in range(job.seeds)]
    name = 'lenet_dann_5_seeds'
    return [
        compare(name, member, lambda: theirs(count), args.rounds, count, 'PyTorch, 5 loops'),
        compare(f'{name}, alone', member, one_by_one, args.rounds, count, 'ours, 5 runs'),
    ]


def features_case(case: str, net: dict, batch: int = 16):
    """A case that times the features of a batch of images of 224 pixels."""

    def run(args) -> list[dict]:
        import benchmark_jax
        import benchmark_torch

        images = np.random.default_rng(0).integers(0, 256, (batch, 224, 224, 3), np.uint8)
        ours, theirs = (side.features(net, images) for side in (benchmark_jax, benchmark_torch))
        ours(), theirs()
        return [compare(case, ours, theirs, args.rounds)]

    return run


def probe_sweep(args) -> list[dict]:
    """25 strengths x 5 seeds of logistic regression, 100 classes on 10,000 x 1,280 features.

    The others would take an hour. One seed is timed and counted for all five, which come one after
    the other on a CPU; of theirs every sixth strength, counted for its neighbours too. Ours has
    its compilation in it.
    """
    import benchmark_probes as probes

    features, labels = probes.examples(10_000, 1280, 100)
    chosen, strengths = probes.halves(len(labels), seeds=1), np.logspace(-2, 4, 25)
    some, seeds = strengths[::6], 5
    curve, spent = probes.timed(probes.ours('logistic', features, labels, chosen, strengths))
    spent *= seeds
    rows = []
    for name, make in (('scikit-learn', probes.scikit), ('PyTorch L-BFGS', probes.torch_loop)):
        theirs, seconds = probes.timed(make('logistic', features, labels, chosen, some))
        seconds *= len(strengths) / len(some) * seeds
        rows.append(
            {
                'case': f'probe_sweep, {name}',
                'against': f'{name}, extrapolated from {len(some)} of {curve.size * seeds} fits',
                'cores': cores(),
                'ours_ms': spent * 1e3,
                'theirs_ms': seconds * 1e3,
                'ratio': seconds / spent,
                'spread': [seconds / spent] * 2,
                'accuracy': {'ours': curve[0, ::6].tolist(), 'theirs': theirs[0].tolist()},
            }
        )
    return rows


def features_then_probe(args) -> list[dict]:
    """The whole job: features of 240 images by ResNet-18, and the sweep of a probe on them."""
    import benchmark_jax
    import benchmark_probes as probes
    import benchmark_torch

    rng, net = np.random.default_rng(0), {'name': 'imagenet_resnet', 'depth': 18}
    images = rng.integers(0, 256, (15, 16, 224, 224, 3), np.uint8)
    labels = rng.integers(0, 2, 240).astype(np.int32)
    chosen, strengths = probes.halves(240, seeds=5), np.logspace(-2, 4, 17)

    def job(side, sweep, probe):
        made = [side.features(net, batch) for batch in images]

        def run():
            features = np.concatenate([one() for one in made])
            return sweep(probe, features, labels, chosen, strengths)()

        return run

    rows = []
    for probe in ('ridge', 'logistic'):
        ours = job(benchmark_jax, probes.ours, probe)
        theirs = job(benchmark_torch, probes.scikit, probe)
        ours(), theirs()
        against = 'PyTorch and scikit-learn'
        case = f'features_then_probe, {probe}'
        rows.append(compare(case, ours, theirs, max(1, args.rounds // 3), against=against))
    return rows


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


def batches(job: Steps) -> dict[str, np.ndarray]:
    """POOL batches of noise in place of images: the speed is the same."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, POOL, job.batch, *job.image), np.uint8)
    labels = rng.integers(0, 10, (POOL, job.batch), np.int32)
    return {'image': images[0], 'target': images[1], 'label': labels}


def torch_loop(job: Steps):
    from benchmark_torch import loop

    return loop(job, batches(job), RATE, MOMENTUM)


def jax_loop(job: Steps):
    """The same, as steps of a run."""
    from benchmark_jax import loop

    return loop(job, batches(job), RATE, MOMENTUM)


LOOPS = {'jax': jax_loop, 'torch': torch_loop}
LENET = {'name': 'lenet'}
RESNET18 = {'name': 'imagenet_resnet', 'depth': 18}
STEPS = {
    'lenet_step': Steps(LENET),
    'lenet_dann_step': Steps(LENET, 'dann'),
    'lenet_dan_step': Steps(LENET, 'dan'),
    'lenet_adda_step': Steps(LENET, 'adda'),
    'cifar_resnet20_step': Steps({'name': 'cifar_resnet', 'depth': 20}, image=(32, 32, 3)),
    'resnet18_last_stage_step': Steps(
        RESNET18, trains='encoder/stage4|head', batch=16, image=(224, 224, 3), loop=False
    ),
    'lenet_dann_5_seeds': Steps(LENET, 'dann', seeds=5),
}
CASES = {
    **{name: step_case(name) for name in STEPS},
    'lenet_dann_5_seeds': seeds,
    'resnet50_features': features_case(
        'resnet50_features', {'name': 'imagenet_resnet', 'depth': 50}
    ),
    'mobilenet_v2_features': features_case('mobilenet_v2_features', {'name': 'mobilenet_v2'}),
    'features_then_probe': features_then_probe,
    'probe_sweep': probe_sweep,
    'first_step': first_step,
}

if __name__ == '__main__':
    main()
