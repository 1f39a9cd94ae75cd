"""Tells classes and probabilities of images by a finished run.

    python launch/predict.py --run runs/quickstart/fine_tuned photo.jpg folder_of_images
    python launch/predict.py --run RUN FOLDER --format csv --top 3 > predictions.csv

Classes that the run never saw are recognised by a gallery, a folder with a sub-folder of one image
or more for each, or an .npz file of what --save_gallery kept of several:

    python launch/predict.py --run RUN --gallery FOLDER [--save_gallery people.npz] IMAGE
    python launch/predict.py --run RUN --gallery people.npz --gallery MORE IMAGE
    python launch/predict.py --run RUN --gallery people.npz
    python launch/predict.py --run RUN --verify A.png B.png

Without an image the gallery's classes are listed, and how many images each has. The nearest class
is named with its distance, or *unknown* if that is not below lambda: --threshold, or what the run
found on its pairs. With --verify two images are the same or different by lambda.

Of a run of several tasks every task is told: the class, or --top of them, and its probability; of
several labels those above 1/2, joined by '|'; of a number its value.

A zero-shot run takes classes that it was not trained with from a table of what they are like, with
its attributes for columns (class,stripes,legs; see tljax/data/added.py). The answer is one of these
or of the run's own classes, or with --only_new one of these:

    python launch/predict.py --run RUN --classes new_classes.csv [--only_new] IMAGE

Folders are searched through. Images are decoded, resized and normalised as the run's own were. Of
black strokes on white, where the run learnt white ones on black, as from Omniglot, --invert.
Exit codes: 0 all images predicted; 2 bad input; 3 some images could not be read (they are named,
the others predicted).
"""

import argparse
import collections
import csv
import functools
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

Named = list[tuple[str, float]]  # [(class, probability)] from the most probable
Row = tuple[str, Named | Mapping[str, Named]]  # image, what it is, or what each task says it is


class Layout(NamedTuple):
    """How rows are shown."""

    columns: list[str]
    cells: Callable[[Row, int], list[str]]  # with so many digits
    entry: Callable[[Row], dict]  # as JSON


def finite(text: str) -> float:
    """A number that others can be less than.

    Raises:
      ValueError: it is none.
    """
    if not math.isfinite(number := float(text)):
        raise ValueError(f'{text} is no finite number')
    return number


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    import jax

    from tljax import predict

    cache = os.environ.get('JAX_COMPILATION_CACHE_DIR', str(Path.home() / '.cache/tljax/xla'))
    jax.config.update('jax_compilation_cache_dir', cache)
    try:
        if arguments.only_new and not arguments.classes:
            raise ValueError('--only_new needs --classes')
        if arguments.save_gallery and (arguments.verify or not arguments.gallery):
            raise ValueError('--save_gallery needs --gallery FOLDER, and no --verify')
        if not arguments.images and (arguments.verify or not arguments.gallery):
            raise ValueError('name an image; only a --gallery can be looked into without one')
        new = predict.Added(arguments.classes, arguments.only_new) if arguments.classes else None
        model = predict.load(arguments.run, arguments.member, new)
        model = model._replace(inverted=arguments.invert)
        images = predict.find(arguments.images)
        if arguments.verify or arguments.gallery:
            print(model.title, file=sys.stderr)
            limit = model.threshold if arguments.threshold is None else arguments.threshold
            if arguments.verify:
                return _verified(model, images, limit)
            return _compared(model, images, limit, arguments)
    except ValueError as error:
        if os.environ.get('TLJAX_TRACEBACK'):
            raise
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(model.title, file=sys.stderr)
    top, bad = min(arguments.top, len(model.classes)), []
    layout = of_tasks(model.tasks, arguments.top) if model.tasks else of_classes(top)

    def rows() -> Iterable[Row]:
        for one in predict.predictions(model, images):
            if one.error:
                bad.append(one.error)
                print(f'error: {one.error}', file=sys.stderr)
            elif model.tasks:
                told = lambda name, task: predict.told(one.found[name], task, arguments.top)
                yield str(one.path), {n: told(n, task) for n, task in model.tasks.items()}
            else:
                yield str(one.path), predict.ranked(one.found, model.classes, top)

    WRITERS[arguments.format](rows(), layout)
    return _code(len(bad), len(images))


def _code(bad: int, images: int) -> int:
    """The exit code, after telling of how many images nothing is known."""
    if bad:
        print(f'error: {bad} of {images} images could not be read', file=sys.stderr)
    return 3 if bad else 0


def _verified(model, images: list[Path], limit: float | None) -> int:
    """Tells whether two images are of one class."""
    from tljax import gallery

    if len(images) != 2 or limit is None:
        raise ValueError('--verify needs two images, and a --threshold if the run found none')
    features = gallery.embed(model, images)
    pair = gallery.Gallery(features[:1], ('',), model.metric, model.title)
    [[(_, apart)]] = gallery.search(pair, features[1:])
    word = 'same' if apart < limit else 'different'
    print(f'{word}  distance {apart:.4f}  lambda {limit:.4f}')
    return 0


def _compared(model, images: list[Path], limit: float | None, arguments) -> int:
    """Names images by a gallery, or without any tells what is in it."""
    import numpy as np

    from tljax import gallery, predict

    if arguments.save_gallery:
        gallery.make_room(arguments.save_gallery)
    each = (gallery.open_(model, path) for path in arguments.gallery)
    whole = functools.reduce(gallery.extended, each)
    if arguments.save_gallery:
        gallery.save(whole, arguments.save_gallery)
    print(f'{len(whole.classes)} classes, lambda {limit}', file=sys.stderr)
    if not images:
        WRITERS[arguments.format](collections.Counter(whole.names).items(), ENROLLED)
        return 0
    top = min(arguments.top, len(whole.classes))
    good, features = [], []
    for path, row, error in predict.outputs(model, images, model.features):
        if error:
            print(f'error: {error}', file=sys.stderr)
        else:
            good.append(str(path))
            features.append(row)
    found = gallery.search(whole, np.stack(features), top) if good else []
    rows = [(path, gallery.named(one, limit)) for path, one in zip(good, found, strict=True)]
    WRITERS[arguments.format](rows, of_classes(top, 'distance'))
    return _code(len(images) - len(good), len(images))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('images', nargs='*', metavar='IMAGE|FOLDER')
    parser.add_argument('--run', required=True, type=Path, help='directory of a finished run')
    parser.add_argument('--format', choices=WRITERS, default='table')
    parser.add_argument(
        '--member', type=int, help='number in results.json (default: most labels, first seed)'
    )
    parser.add_argument(
        '--gallery', action='append', type=Path, metavar='FOLDER|NPZ', help='of new classes'
    )
    parser.add_argument('--save_gallery', type=Path, metavar='NPZ', help='where to keep it')
    parser.add_argument('--classes', type=Path, metavar='CSV', help='to add to a zero-shot run')
    parser.add_argument('--only_new', action='store_true', help="without the run's own classes")
    parser.add_argument('--verify', action='store_true', help='are two images of one class?')
    parser.add_argument('--invert', action='store_true', help='black for white, before all else')
    parser.add_argument('--threshold', type=finite, help='lambda (default: that of the run)')
    parser.add_argument('--top', type=_positive, default=1, help='classes an image (default: 1)')
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f'{text!r} is not a number of 1 or more')
    return int(text)


# Of a gallery: rows (class, count).
ENROLLED = Layout(
    ['class', 'images'],
    lambda row, digits: [row[0], str(row[1])],
    lambda row: {'class': row[0], 'images': row[1]},
)


def of_classes(top: int, value: str = 'probability') -> Layout:
    """Columns image, class, probability, class_2, probability_2, ..."""

    def entry(row: Row) -> dict:
        image, ranked = row
        return {'image': image, 'predictions': [{'class': name, value: p} for name, p in ranked]}

    def cells(row: Row, digits: int) -> list[str]:
        image, ranked = row
        return [image, *(cell for name, p in ranked for cell in (name, f'{p:.{digits}f}'))]

    return Layout(['image', *_ranks('class', value, top)], cells, entry)


def _ranks(name: str, value: str, top: int) -> list[str]:
    later = [f'{one}_{k}' for k in range(2, top + 1) for one in (name, value)]
    return [name, value, *later]


def of_tasks(tasks: Mapping, top: int) -> Layout:
    """Columns image, TASK, TASK_probability, ...; of a number TASK, of several TASK_NAME."""

    def columns(name, task) -> list[str]:
        if task.kind == 'regression':
            several = len(task.classes) > 1
            return [f'{name}_{value}' for value in task.classes] if several else [name]
        count = 1 if task.kind == 'multilabel' else min(top, len(task.classes))
        return _ranks(name, f'{name}_probability', count)

    def cells(named: Named, task, digits: int) -> list[str]:
        numbers = [f'{number:.{digits}f}' for _, number in named]
        if task.kind == 'regression':
            return numbers
        if task.kind == 'multilabel':
            return ['|'.join(label for label, _ in named), '|'.join(numbers)]
        return [cell for (name, _), p in zip(named, numbers, strict=True) for cell in (name, p)]

    def entry(named: Named, task) -> list | dict:
        if task.kind == 'regression':
            return dict(named)
        return [{'class': label, 'probability': p} for label, p in named]

    each = tasks.items()
    return Layout(
        ['image', *(column for name, task in each for column in columns(name, task))],
        lambda row, digits: [row[0], *(c for n, t in each for c in cells(row[1][n], t, digits))],
        lambda row: {'image': row[0], 'tasks': {n: entry(row[1][n], t) for n, t in each}},
    )


def _csv(rows: Iterable[Row], layout: Layout) -> None:
    writer = csv.writer(sys.stdout, lineterminator='\n')
    writer.writerow(layout.columns)
    writer.writerows(layout.cells(row, 8) for row in rows)


def _json(rows: Iterable[Row], layout: Layout) -> None:
    print(json.dumps([layout.entry(row) for row in rows], indent=1))


def _table(rows: Iterable[Row], layout: Layout) -> None:
    lines = [layout.columns, *(layout.cells(row, 4) for row in rows)]
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
