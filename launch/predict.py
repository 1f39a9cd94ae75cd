"""Tells classes and probabilities of images by a finished run.

    python launch/predict.py --run runs/quickstart/fine_tuned photo.jpg folder_of_images
    python launch/predict.py --run RUN FOLDER --format csv --top 3 > predictions.csv

Folders are searched through. Images are decoded, resized and normalised as the run's own were.
Exit codes: 0 all images predicted; 2 bad input; 3 some images could not be read (they are named,
the others predicted).
"""

import argparse
import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

Row = tuple[str, list[tuple[str, float]]]  # image, [(class, probability)] from the most probable


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    import jax

    from tljax import predict

    cache = os.environ.get('JAX_COMPILATION_CACHE_DIR', str(Path.home() / '.cache/tljax/xla'))
    jax.config.update('jax_compilation_cache_dir', cache)
    try:
        model = predict.load(arguments.run, arguments.member)
        images = predict.find(arguments.images)
    except ValueError as error:
        if os.environ.get('TLJAX_TRACEBACK'):
            raise
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(model.title, file=sys.stderr)
    top, bad = min(arguments.top, len(model.classes)), []

    def rows() -> Iterable[Row]:
        for one in predict.predictions(model, images):
            if one.error:
                bad.append(one.error)
                print(f'error: {one.error}', file=sys.stderr)
            else:
                yield str(one.path), predict.ranked(one, model.classes, top)

    WRITERS[arguments.format](rows(), top)
    if bad:
        print(f'error: {len(bad)} of {len(images)} images could not be read', file=sys.stderr)
    return 3 if bad else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('images', nargs='+', metavar='IMAGE|FOLDER')
    parser.add_argument('--run', required=True, type=Path, help='directory of a finished run')
    parser.add_argument('--format', choices=WRITERS, default='table')
    parser.add_argument(
        '--member', type=int, help='number in results.json (default: most labels, first seed)'
    )
    parser.add_argument('--top', type=_positive, default=1, help='classes an image (default: 1)')
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f'{text!r} is not a number of 1 or more')
    return int(text)


def _columns(top: int) -> list[str]:
    later = [f'{name}_{k}' for k in range(2, top + 1) for name in ('class', 'probability')]
    return ['image', 'class', 'probability', *later]


def _cells(row: Row, digits: int) -> list[str]:
    image, ranked = row
    return [image, *(cell for name, p in ranked for cell in (name, f'{p:.{digits}f}'))]


def _csv(rows: Iterable[Row], top: int) -> None:
    writer = csv.writer(sys.stdout, lineterminator='\n')
    writer.writerow(_columns(top))
    writer.writerows(_cells(row, 8) for row in rows)


def _json(rows: Iterable[Row], top: int) -> None:
    del top
    entries = [
        {'image': image, 'predictions': [{'class': name, 'probability': p} for name, p in ranked]}
        for image, ranked in rows
    ]
    print(json.dumps(entries, indent=1))


def _table(rows: Iterable[Row], top: int) -> None:
    lines = [_columns(top), *(_cells(row, 4) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print('  '.join(cells).rstrip())


WRITERS: Mapping[str, Callable[[Iterable[Row], int], None]] = {
    'table': _table,
    'csv': _csv,
    'json': _json,
}

if __name__ == '__main__':
    sys.exit(main())
