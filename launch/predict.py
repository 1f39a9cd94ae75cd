"""Tells classes and probabilities of images by a finished run.

    python launch/predict.py --run runs/quickstart/fine_tuned photo.jpg folder_of_images
    python launch/predict.py --run RUN FOLDER --format csv --top 3 > predictions.csv

Classes that the run never saw are recognised by a gallery, a folder with a sub-folder of one image
or more for each, or an .npz file of what --save_gallery kept of several:

    python launch/predict.py --run RUN --gallery FOLDER [--save_gallery people.npz] IMAGE
    python launch/predict.py --run RUN --gallery people.npz --gallery MORE IMAGE
    python launch/predict.py --run RUN --verify A.png B.png

The nearest class is named with its distance, or *unknown* if that is not below lambda: --threshold,
or what the run found on its pairs. With --verify two images are the same or different by lambda.

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
        if arguments.verify or arguments.gallery:
            print(model.title, file=sys.stderr)
            return _compared(model, images, arguments)
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


def _compared(model, images: list[Path], arguments) -> int:
    """Names images by a gallery, or verifies two."""
    from tljax import gallery

    limit = model.threshold if arguments.threshold is None else arguments.threshold
    features = gallery.embed(model, images)
    if arguments.verify:
        if len(images) != 2 or limit is None:
            raise ValueError('--verify needs two images, and a --threshold if the run found none')
        pair = gallery.Gallery(features[:1], ('',), model.metric, model.title)
        [[(_, apart)]] = gallery.search(pair, features[1:])
        word = 'same' if apart < limit else 'different'
        print(f'{word}  distance {apart:.4f}  lambda {limit:.4f}')
        return 0
    whole = None
    for path in arguments.gallery:
        one = gallery.open_(model, path)
        whole = gallery.extended(whole, one) if whole else one
    if arguments.save_gallery:
        gallery.save(whole, arguments.save_gallery)
    print(f'{len(whole.classes)} classes, lambda {limit}', file=sys.stderr)
    top = min(arguments.top, len(whole.classes))
    found = gallery.search(whole, features, top)
    rows = [(str(p), gallery.named(one, limit)) for p, one in zip(images, found, strict=True)]
    WRITERS[arguments.format](rows, top, 'distance')
    return 0


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
    parser.add_argument(
        '--gallery', action='append', type=Path, metavar='FOLDER|NPZ', help='of new classes'
    )
    parser.add_argument('--save_gallery', type=Path, metavar='NPZ', help='where to keep it')
    parser.add_argument('--verify', action='store_true', help='are two images of one class?')
    parser.add_argument('--threshold', type=float, help='lambda (default: that of the run)')
    parser.add_argument('--top', type=_positive, default=1, help='classes an image (default: 1)')
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f'{text!r} is not a number of 1 or more')
    return int(text)


def _columns(top: int, value: str) -> list[str]:
    later = [f'{name}_{k}' for k in range(2, top + 1) for name in ('class', value)]
    return ['image', 'class', value, *later]


def _cells(row: Row, digits: int) -> list[str]:
    image, ranked = row
    return [image, *(cell for name, p in ranked for cell in (name, f'{p:.{digits}f}'))]


def _csv(rows: Iterable[Row], top: int, value: str = 'probability') -> None:
    writer = csv.writer(sys.stdout, lineterminator='\n')
    writer.writerow(_columns(top, value))
    writer.writerows(_cells(row, 8) for row in rows)


def _json(rows: Iterable[Row], top: int, value: str = 'probability') -> None:
    del top
    entries = [
        {'image': image, 'predictions': [{'class': name, value: p} for name, p in ranked]}
        for image, ranked in rows
    ]
    print(json.dumps(entries, indent=1))


def _table(rows: Iterable[Row], top: int, value: str = 'probability') -> None:
    lines = [_columns(top, value), *(_cells(row, 4) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print('  '.join(cells).rstrip())


WRITERS: Mapping[str, Callable[..., None]] = {
    'table': _table,
    'csv': _csv,
    'json': _json,
}

if __name__ == '__main__':
    sys.exit(main())
