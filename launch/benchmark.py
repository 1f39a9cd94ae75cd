"""Speed beside others: training steps, features and probes.

    python launch/benchmark.py                                    # all cases
    python launch/benchmark.py lenet_dann_step --rounds 15 --out benchmark.json

Both sides do the same work on the same data: nets, batches and optimizers of training steps are
alike, and so are the features and labels of probes. PyTorch is eager, its memory channels-last.
Rounds of the two alternate, so that what else the machine does falls on both; the ratio is the
median over rounds. Rows of several tasks also have the memory of both, each in a process of its
own. With --out a file that exists keeps the rows of other cases. Where the machine is not idle,
threads that wait for each other make the comparison meaningless: give it one core,

    OMP_NUM_THREADS=1 taskset -c 0 python launch/benchmark.py

PyTorch is an extra: `pip install -e '.[torch]'`.
"""

import argparse
import importlib.util
import json
import platform
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmark_cases import CASES  # noqa: E402
from benchmark_child import CHILDREN  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('cases', nargs='*', help=f'of {", ".join(CASES)}; all if none is named')
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--steps', type=int, default=10, help='per round')
    parser.add_argument('--out', type=Path, help='a JSON file for the table')
    parser.add_argument('--child', nargs=3, help=argparse.SUPPRESS)  # what, side, name of the steps
    args = parser.parse_args()
    if args.child:
        what, side, name = args.child
        CHILDREN[what](side, name)
        return
    if wrong := set(args.cases) - set(CASES):
        parser.error(f'unknown case {", ".join(sorted(wrong))}: there are {", ".join(CASES)}')
    if not importlib.util.find_spec('torch'):
        sys.exit("PyTorch is missing: pip install -e '.[torch]'")
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


HEADER = f'{"case":36} {"ours, ms":>10} {"theirs, ms":>10} {"ratio":>6} {"spread of the ratio":>20}'


def line(row: dict) -> str:
    low, high = row['spread']
    return (
        f'{row["case"]:36} {row["ours_ms"]:10.1f} {row["theirs_ms"]:10.1f} '
        f'{row["ratio"]:6.2f} {low:13.2f} - {high:.2f}'
    )


if __name__ == '__main__':
    main()
