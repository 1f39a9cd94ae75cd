"""Extracts features of whole data sets with a pretrained network, into files that NumPy reads.

    python launch/extract.py --weights torchvision:ResNet18_Weights.IMAGENET1K_V1 \
        --data folder:PATH --endpoints stage3,features --out DIR
    python launch/extract.py --weights file:net.pth --net '{"name": "cifar_resnet", "depth": 20}' \
        --data tfds:cifar10 --split train test --endpoints features --out DIR
    python launch/extract.py --weights runs/mine --data npz:mine.npz --endpoints features --out DIR

Every endpoint becomes one .npy file of N rows, with labels.npy beside it, and rows.txt, which names
the image of each row, where they are files. All endpoints come from one pass. DIR is a store as
`config.features.root` names one: what is in it already, of the same weights, images, preprocessing,
endpoint and pooling, is not computed again. Killed or stopped, the same command goes on.
Exit codes: 0 all there; 2 bad input; 75 stopped by SIGTERM.
"""

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tljax.signals import exit_on_sigterm  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    import jax

    from tljax import backbones, features

    cache = os.environ.get('JAX_COMPILATION_CACHE_DIR', str(Path.home() / '.cache/tljax/xla'))
    jax.config.update('jax_compilation_cache_dir', cache)
    options = vars(arguments)
    splits, dataset, root = (options.pop(name) for name in ('split', 'data', 'out'))
    try:
        options['net'] = backbones.told(arguments.net) if arguments.net else None
        for split in splits:
            found = features.extract(dataset=dataset, split=split, root=root, **options)
            for endpoint, array in found.arrays.items():
                print(f'{split} {endpoint} {list(array.shape)}: {array.filename}')
    except ValueError as error:
        if os.environ.get('TLJAX_TRACEBACK'):
            raise
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--weights', required=True, help='published weights (torchvision:, timm: ...) or a run')
    add('--net', help='config.net as JSON, if the weights do not tell it')
    add('--data', required=True, help='a data set: folder:PATH, tfds:NAME, npz:PATH ...')
    add('--split', nargs='+', default=['train'], help='one or more (default: train)')
    add('--endpoints', required=True, type=_names, help='of the net: stage3,features')
    add('--out', required=True, type=Path, help='the folder for features')
    add('--pool', default='mean', help='of maps: mean, max, mean_max, first, flat, none')
    add('--size', type=int, default=0, help='side of images (default: as the run, or the net)')
    add('--channels', type=int, default=0, help='of images (default: as the run, or the net)')
    add('--fit', default='', help='crop, crop:0.875 or squash (default: as the run, or crop)')
    add('--data_dir', default='', help='of prepared TFDS sets')
    add('--drop', default='', help='names in the weights to ignore: fc|aux')
    add('--member', type=int, default=0, help='of a run (default: 0)')
    add('--block', type=int, default=64, help='images at once (default: 64)')
    add('--devices', type=int, default=0, help='how many (default: all)')
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(',') if name)


if __name__ == '__main__':
    exit_on_sigterm()
    sys.exit(main())
