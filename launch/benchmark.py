"""Speed beside others: training steps, features and probes.

    python launch/benchmark.py                                    # all cases
    python launch/benchmark.py lenet_dann_step --rounds 15 --out benchmark.json
    python launch/benchmark.py resnet50_features resnet18_last_stage_step \
        --bfloat16 --compile --out gpu.json                       # on a GPU

Both sides do the same work on the same data: nets, batches and optimizers of training steps are
alike, and so are the features and labels of probes. PyTorch is eager, its memory channels-last;
--compile gives its networks to torch.compile. Where PyTorch sees a GPU, JAX has to, too. Beside the
times of steps and features, rows have images a second, and the operations a second as a share of
what large matrix products reach on the device.
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
    # As many as a run's compiled calls, which take about two seconds.
    parser.add_argument('--steps', type=int, default=50, help='per round')
    parser.add_argument('--out', type=Path, help='a JSON file for the table')
    parser.add_argument(
        '--bfloat16', action='store_true', help='both compute in it; not of LeNet and Conv4'
    )
    parser.add_argument('--compile', action='store_true', help='with torch.compile')
    parser.add_argument('--child', nargs=3, help=argparse.SUPPRESS)  # what, side, name of the steps
    args = parser.parse_args()
    if args.child:
        what, side, name = args.child
        CHILDREN[what](side, name, args)
        return
    if wrong := set(args.cases) - set(CASES):
        parser.error(f'unknown case {", ".join(sorted(wrong))}: there are {", ".join(CASES)}')
    if not importlib.util.find_spec('torch'):
        sys.exit("PyTorch is missing: pip install -e '.[torch]'")
    if wrong := mismatch():
        sys.exit(wrong)
    rows = []
    print(HEADER)
    for case in args.cases or CASES:
        for row in CASES[case](args):
            rows.append(row | named(row, args))
            print(line(rows[-1]), flush=True)
        if args.out:
            write(args.out, rows)


def mismatch() -> str:
    """Why the two sides would not be of the same device."""
    import jax
    import torch

    ours, theirs = jax.default_backend(), 'gpu' if torch.cuda.is_available() else 'cpu'
    if ours == theirs:
        return ''
    hint = 'install JAX for CUDA (BUILD.md), or hide the GPU by CUDA_VISIBLE_DEVICES= '
    return f'JAX computes on {ours}, PyTorch on {theirs}: {hint}JAX_PLATFORMS=cpu'


def named(row: dict, args) -> dict:
    """The case and what is beside it, by how the command has nets computed."""
    case, against = row['case'], row['against']
    return {
        'case': f'{case}, bfloat16' if args.bfloat16 else case,
        'against': against.replace('PyTorch', 'PyTorch, compiled') if args.compile else against,
    }


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
    device = jax.devices()[0].device_kind
    machine = {'processor': platform.processor(), 'device': device, **versions}
    rows = sorted(rows, key=lambda row: list(CASES).index(row['case'].partition(',')[0]))
    path.write_text(json.dumps({'machine': machine, 'rows': rows}, indent=2) + '\n')


HEADER = f'{"case":36} {"ours, ms":>10} {"theirs, ms":>10} {"ratio":>6} {"spread of the ratio":>20}'


def line(row: dict) -> str:
    low, high = row.get('spread', (row['ratio'],) * 2)
    text = (
        f'{row["case"]:36} {row["ours_ms"]:10.1f} {row["theirs_ms"]:10.1f} '
        f'{row["ratio"]:6.2f} {low:13.2f} - {high:.2f}'
    )
    if 'share_of_peak' in row:
        rate, share = row['images_per_second']['ours'], row['share_of_peak']['ours']
        text += f'   ours: {rate:.0f} images/s, {100 * share:.0f} % of matrix products'
    return text


if __name__ == '__main__':
    main()
