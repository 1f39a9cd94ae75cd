"""Writes the trained network of a run as safetensors, in the layout of the net's usual source.

    python launch/export.py --run runs/tuned/fine_tuned --out mine.safetensors --member 0

torchvision or timm load it (`load_state_dict`), and so does tljax, as `file:mine.safetensors`: the
same bits. A net that is published nowhere keeps its own names. In the file are the encoder and, if
it is linear, the classifier; --member chooses one of several, as results.json numbers them.
Exit codes: 0 written; 2 bad input.
"""

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    from tljax import export

    try:
        found = export.to_file(arguments.run, arguments.out, arguments.member)
    except ValueError as error:
        if os.environ.get('TLJAX_TRACEBACK'):
            raise
        print(f'error: {error}', file=sys.stderr)
        return 2
    left = f'; left out: {", ".join(found.left)}' if found.left else ''
    print(f'{arguments.out}: {", ".join(found.roles)}{left}')
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--run', required=True, type=Path, help='the directory of a finished run')
    parser.add_argument('--out', required=True, type=Path, help='the file: ends in .safetensors')
    parser.add_argument('--member', type=int, help='of a run of several')
    return parser


if __name__ == '__main__':
    sys.exit(main())
