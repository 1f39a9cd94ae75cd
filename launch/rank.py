"""Ranks source models for a target by transferability scores, without training any of them.

    python launch/rank.py --data folder:PATH --weights torchvision:ResNet18_Weights.IMAGENET1K_V1 \
        --net '{"name": "imagenet_resnet", "depth": 18}' --weights runs/mine
    python launch/rank.py --study runs/sources   # also Kendall's tau with what fine-tuning reached

Every --weights that names published weights is followed by the --net they are of; of a run the
directory alone will do. --labels_per_class takes that many training examples of each class.
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
    try:
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
    if arguments.out:
        found = {'scores': table, 'reached': reached, 'kendall_tau': tau}
        arguments.out.write_text(json.dumps(found, indent=1) + '\n')
    return 0


def _named(arguments):
    """The candidates of --data, --weights and --net."""
    from tljax import ranking
    from tljax.nets import pretrained

    if not arguments.data or not arguments.weights:
        raise ValueError('give --study DIR, or --data and two or more --weights')
    nets = [json.loads(text) for text in arguments.net]
    published = [one for one in arguments.weights if pretrained.is_published(one)]
    if len(nets) not in (1, len(published)):
        raise ValueError(
            f'{len(published)} published weights, but {len(nets)} --net; give one for all, or one '
            'for each in the same order'
        )
    return [
        ranking.candidate(
            weights,
            arguments.data,
            net=nets[published.index(weights) % len(nets)] if weights in published else None,
            split=arguments.split,
            labels_per_class=arguments.labels_per_class,
            data_dir=arguments.data_dir,
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
    parser.add_argument('--net', action='append', default=[], help='of published weights, as JSON')
    parser.add_argument('--by', default='logme', help='the score to sort by (default: logme)')
    parser.add_argument('--out', type=Path, help='write everything there, as JSON')
    return parser


if __name__ == '__main__':
    sys.exit(main())
