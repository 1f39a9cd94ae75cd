"""Ranks source models for a target by transferability scores, without training any of them.

    python launch/rank.py --data folder:PATH --weights runs/mine \
        --weights torchvision:ResNet18_Weights.IMAGENET1K_V1
    python launch/rank.py --study runs/sources   # also Kendall's tau with what fine-tuning reached

Only labels of the target's training split are used; --labels_per_class takes so many of each class.
The net of a file is told by `--net 'file:net.pth={"name": "cifar_resnet", "depth": 20}'`.
Exit codes: 0 ranked; 2 bad input.
"""

import argparse
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    import jax

    from tljax import ranking
    from tljax.console import CONSOLE, say

    cache = os.environ.get('JAX_COMPILATION_CACHE_DIR', str(Path.home() / '.cache/tljax/xla'))
    jax.config.update('jax_compilation_cache_dir', cache)
    out = arguments.out
    try:
        ranking.check_score(arguments.by)
        if out and not out.absolute().parent.is_dir():
            raise ValueError(f'--out {out} cannot be: there is no such folder')
        if arguments.study:
            candidates, reached = ranking.of_study(arguments.study)
        else:
            candidates, reached = _named(arguments), {}
        table = {}
        for one in candidates:
            say(f'scoring {one.name}')
            table[one.name] = ranking.scores(one)
        tau = ranking.agreement(table, reached) if len(reached) > 1 else {}
        CONSOLE.print(ranking.format_table(table, reached, tau, arguments.by))
    except ValueError as error:
        if os.environ.get('TLJAX_TRACEBACK'):
            raise
        print(f'error: {error}', file=sys.stderr)
        return 2
    if out:
        found = {'scores': table, 'reached': reached, 'kendall_tau': tau}
        out.write_text(json.dumps(found, indent=1) + '\n')
    return 0


def _named(arguments):
    """The candidates of --data, --weights and --net."""
    from tljax import backbones, ranking

    if not arguments.data or not arguments.weights:
        raise ValueError('give --study DIR, or --data and two or more --weights')
    if twice := [one for one in arguments.weights if arguments.weights.count(one) > 1]:
        raise ValueError(f'--weights {twice[0]} is given twice')
    nets = dict(text.partition('=')[::2] for text in arguments.net)
    if extra := set(nets) - set(arguments.weights):
        raise ValueError(f'--net of {sorted(extra)[0]}, which is none of --weights')
    return [
        ranking.candidate(
            weights,
            arguments.data,
            net=backbones.told(nets[weights]) if weights in nets else None,
            split=arguments.split,
            labels_per_class=arguments.labels_per_class,
            data_dir=arguments.data_dir,
            root=arguments.features,
        )
        for weights in arguments.weights
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--study', type=Path, help='directory of a study of several sources')
    parser.add_argument('--data', default='', help='the target: a data set string')
    parser.add_argument('--split', default='train', help='of the target (default: train)')
    parser.add_argument('--labels_per_class', type=int, default=0, help='0: all (default)')
    parser.add_argument('--data_dir', default='', help='of prepared TFDS sets')
    parser.add_argument('--weights', action='append', default=[], help='run or published weights')
    parser.add_argument(
        '--net', action='append', default=[], help='WEIGHTS=JSON, where weights do not tell it'
    )
    parser.add_argument('--features', default='', help='a store of features, as extract.py fills')
    parser.add_argument('--by', default='logme', help='the score to sort by (default: logme)')
    parser.add_argument('--out', type=Path, help='write everything there, as JSON')
    return parser


if __name__ == '__main__':
    sys.exit(main())
