"""A gallery: classes that a finished run never saw, each enrolled by an image or a few.

It is an .npz file of features, which can be saved, looked into and extended without the images.
An image is of the class whose mean is nearest, or unknown if that is not nearer than lambda.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tljax import workdir
from tljax.evaluation.few_shot import distances
from tljax.predict import Model, find, outputs

UNKNOWN = 'unknown'
_BLOCK = 2**22  # numbers that a comparison holds at a time


class Gallery(NamedTuple):
    """Enrolled images: features [N, D] and the name of each one's class, and how they compare."""

    features: np.ndarray
    names: tuple[str, ...]
    metric: str  # 'euclidean' or 'manhattan'
    run: str  # whose features they are, in words
    identity: str = ''  # the same, wherever that run lies; see `identity`

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of enrolment, each once."""
        return tuple(dict.fromkeys(self.names))

    @property
    def means(self) -> np.ndarray:
        """[classes, D]."""
        place = {name: i for i, name in enumerate(self.classes)}
        own = np.array([place[name] for name in self.names])
        count = np.bincount(own)
        together = self.features[np.argsort(own, kind='stable')]
        return np.add.reduceat(together, np.cumsum(count) - count) / count[:, None].astype('f')


def identity(model: Model) -> str:
    """What galleries have to have in common to be compared: weights, and how images are seen."""
    return f'{model.identity()}{"-inverted" * model.inverted}'


def embed(model: Model, paths: Sequence[Path]) -> np.ndarray:
    """Features [N, D] of images.

    Raises:
      ValueError: one cannot be decoded, or is of another shape than the run's.
    """
    rows = []
    for _, row, error in outputs(model, paths, model.features):
        if error:
            raise ValueError(error)
        rows.append(row)
    return np.stack(rows)


def enrol(model: Model, folder: Path) -> Gallery:
    """A sub-folder for each class with one image or more, or images named after their class.

    Raises:
      ValueError: there are no images, or one cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f'{folder}: is no folder of images, nor a gallery that was saved as .npz')
    paths = find([folder])
    inner = [path.relative_to(folder) for path in paths]
    names = tuple(path.parts[0] if len(path.parts) > 1 else path.stem for path in inner)
    if UNKNOWN in names:
        raise ValueError(f'{folder}: no class can be called {UNKNOWN!r}; rename it')
    return Gallery(embed(model, paths), names, model.metric, model.title, identity(model))


def open_(model: Model, path: Path) -> Gallery:
    """A saved gallery, or a folder that is enrolled now."""
    return load(path, model) if Path(path).suffix == '.npz' else enrol(model, path)


def extended(one: Gallery, other: Gallery) -> Gallery:
    """All that is in either; images of a class that both have come together."""
    if (one.identity, one.metric) != (other.identity, other.metric):
        raise ValueError(f'galleries of different runs: {one.run} and {other.run}; enrol again')
    features = np.concatenate([one.features, other.features])
    return one._replace(features=features, names=one.names + other.names)


def make_room(path: Path) -> None:
    """Makes the folder of a gallery that is going to be saved.

    Raises:
      ValueError: it cannot be, or the name is none for a gallery.
    """
    if Path(path).suffix != '.npz':
        raise ValueError(f'{path}: a gallery is saved as .npz; give it a name that ends in that')
    with _written(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)


def save(gallery: Gallery, path: Path) -> None:
    """Writes a gallery as .npz, whole or not at all: an array for each field.

    Raises:
      ValueError: as `make_room`, or there is no room on the disk.
    """
    make_room(path)
    arrays = {**gallery._asdict(), 'names': np.array(gallery.names)}
    with _written(path), workdir.replaced(Path(path)) as draft, draft.open('wb') as file:
        np.savez(file, **arrays)


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(f'{path} cannot be written ({error.strerror}); save elsewhere') from None


def load(path: Path, model: Model) -> Gallery:
    """A saved gallery of the same weights, which sees images as this model does.

    Raises:
      ValueError: there is no such file, it is no gallery, or one of other weights.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            names = tuple(map(str, file['names']))
            words = (str(file[name]) for name in ('metric', 'run', 'identity'))
            found = Gallery(file['features'], names, *words)
        if found.features.shape[:-1] != (len(names),) or not np.isfinite(found.features).all():
            shape = list(found.features.shape)
            raise ValueError(f'features {shape} of {len(names)} names, or not all finite')
    except Exception as error:  # np.load raises whatever its zip and npy readers raise
        raise ValueError(f"{path}: can't be read as a gallery ({error}); enrol again") from None
    if found.identity != identity(model):
        raise ValueError(
            f'{path}: is a gallery of {found.run}, whose weights, images or --invert were not '
            f'those of {model.title} now; enrol again'
        )
    return found._replace(run=model.title)


def search(gallery: Gallery, features: np.ndarray, top: int = 1) -> list[list[tuple[str, float]]]:
    """The nearest `top` classes of each of the features [N, D], with their distances."""
    means, classes = gallery.means, gallery.classes
    nearest = _NEAREST[gallery.metric](means)
    top, found = min(top, len(classes)), []
    for start in range(0, len(features), nearest.block):
        block = nearest(features[start : start + nearest.block], top)
        found += [
            [(classes[k], float(d)) for k, d in zip(*one, strict=True)]
            for one in zip(*block, strict=True)
        ]
    return found


class _Euclidean:
    """By one matrix product, in double precision, for it is a difference of large numbers."""

    def __init__(self, means: np.ndarray):
        wide = means.astype(np.float64)
        self.block = max(1, _BLOCK // len(means))
        self.back = np.vstack([-2 * wide.T, (wide * wide).sum(1)])

    def __call__(self, x: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        x = x.astype(np.float64)
        # |x - y|^2 but for |x|^2, which does not change an order.
        order, near = _least(np.hstack([x, np.ones((len(x), 1))]) @ self.back, top)
        return order, np.sqrt(np.maximum(near + (x * x).sum(1)[:, None], 0))


class _Manhattan:
    def __init__(self, means: np.ndarray):
        self.means, self.block = means, max(1, _BLOCK // means.size)

    def __call__(self, x: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        return _least(distances(x, self.means, 'manhattan'), top)


_NEAREST = {'euclidean': _Euclidean, 'manhattan': _Manhattan}


def _least(apart: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and values of the `top` least numbers of each row, least and leftmost first."""
    if top == 1:
        some = apart.argmin(1)[:, None]
    else:
        some = np.argpartition(apart, top - 1, axis=1)[:, :top]
        ranks = np.lexsort((some, np.take_along_axis(apart, some, 1)))
        some = np.take_along_axis(some, ranks, 1)
    return some, np.take_along_axis(apart, some, 1)


def named(nearest: list[tuple[str, float]], limit: float | None) -> list[tuple[str, float]]:
    """The nearest classes, the first *unknown* where it is not nearer than lambda."""
    (_, apart), *others = nearest
    far = limit is not None and not apart < limit
    return [(UNKNOWN, apart), *others] if far else nearest
