"""Classes and probabilities of images by a trained run, with that run's own preprocessing."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from tljax import initial, selection, workdir
from tljax.checkpoints import flatten
from tljax.config import tuples
from tljax.data import added, decode, folder
from tljax.evaluation import unseen
from tljax.inputs import pixels_of
from tljax.prepare import build_method
from tljax.types import Embeddings, Mutable, Params, Spec, Task

BLOCK = 64  # images that are decoded and computed together; the last block is padded


class Model(NamedTuple):
    """One member of a finished run, ready to predict."""

    title: str  # which run and member it is, in words
    classes: tuple[str, ...]  # in label order
    image: tuple[int, int, int]  # the shape it was trained on
    pixels: decode.Pixels
    probabilities: Callable[[np.ndarray], np.ndarray]  # uint8 [N, H, W, C] -> [N, classes]
    features: Callable[[np.ndarray], np.ndarray]  # uint8 [N, H, W, C] -> [N, D]
    metric: str  # how features compare: 'euclidean' or 'manhattan'
    threshold: float | None  # lambda: below which two images are of one class; None: not known
    tasks: Mapping[str, Task]  # of a run that learnt several
    answers: Callable[[np.ndarray], list]  # uint8 [N, H, W, C] -> of each image, {task: [C]}
    inverted: bool = False  # whether images are to be inverted before they are looked at
    # Equal for models whose features are the same, wherever their runs lie and whoever named them.
    identity: Callable[[], str] = str


class Prediction(NamedTuple):
    """Of one image: its probabilities [classes], or {task: [C]}, or what is wrong with it."""

    path: Path
    found: np.ndarray | Mapping[str, np.ndarray] | None
    error: str = ''


class Added(NamedTuple):
    """Classes that a zero-shot run was not trained with."""

    file: Path  # what they are like; see tljax.data.added
    only: bool = False  # whether the answer is one of these, or also of the run's own


# Outputs [N, C] of a task -> what is told of them.
_TOLD = {
    'classification': lambda x: jax.nn.softmax(x, axis=-1),
    'multilabel': jax.nn.sigmoid,
    'regression': lambda x: x,
}


def load(run: Path, member: int | None = None, new: Added | None = None) -> Model:
    """A member of a finished run.

    Args:
      run: its directory.
      member: its number in results.json; None: `selection.best_member`.
      new: classes to add.

    Raises:
      ValueError: there is no finished run on images, or no such member, or `new` cannot be.
    """
    run = Path(run)
    results = results_of(run)
    members = results['members']
    chosen = selection.best_member(results) if member is None else member
    if not 0 <= chosen < len(members):
        raise ValueError(f'--member {chosen}: {run} has the members 0..{len(members) - 1}')
    config = config_of(run)
    tasks = {name: Task(**tuples(one)) for name, one in results.get('tasks', {}).items()}
    spec = Spec(tuple(results['image']), tuple(results['classes']), tasks=tasks)
    if len(spec.image) != 3:
        raise ValueError(
            f'--run {run} was trained on vectors of {spec.image[0]} numbers; images are predicted '
            'by a run that was trained on images'
        )
    trained = values = jax.tree.map(lambda x: x[chosen], initial.trained(run))
    if columns := results.get('embeddings'):
        spec = spec._replace(embeddings=_embeddings(values, columns))
    method = build_method(config, spec)
    predict = method.phases[-1].predict or method.predict
    classes, values = _extended(new, run, config, spec, values) if new else (spec.classes, values)

    @jax.jit
    def probabilities(values, images):
        logits = predict(*values, images)['logits'].astype(jnp.float32)
        return jax.nn.softmax(logits, axis=-1)

    @jax.jit
    def answers(values, images):
        outputs = predict(*values, images)['tasks']
        return {n: _TOLD[task.kind](outputs[n].astype(jnp.float32)) for n, task in tasks.items()}

    features = jax.jit(lambda values, images: predict(*values, images)['features'])
    pairs = results['scores'].get('pairs', {})
    limits = pairs.get('validated_threshold', pairs.get('threshold'))
    axes = ', '.join(f'{axis} {value:g}' for axis, value in members[chosen].items())
    pixels = pixels_of(config, _fit(config))._replace(channels=spec.image[-1])
    title = f'{run}: member {chosen} of {len(members)} ({axes})'
    return Model(
        title,
        classes,
        spec.image,
        pixels,
        lambda images: np.asarray(probabilities(values, images)),
        lambda images: np.asarray(features(values, images)),
        unseen.metric_of(config.method),
        limits[chosen] if limits else None,
        tasks,
        lambda images: _by_image(answers(values, images)),
        identity=cache(lambda: _identity(trained, config, [pixels, spec.image])),
    )


# Keys of a config that say what is computed of values and images.
_COMPUTED = ('method', 'options', 'net', 'head', 'endpoint', 'pool')


def _identity(values: tuple[Params, Mutable], config, images: Any) -> str:
    """SHA-256 of all values and of what else features hang on, in hexadecimal digits."""
    how = {key: config[key] for key in _COMPUTED} | {'images': images}
    found = hashlib.sha256(json.dumps(how, sort_keys=True, default=dict).encode())
    for path, leaf in sorted(flatten(values).items()):
        leaf = np.asarray(leaf)
        found.update(f'{path} {leaf.dtype} {leaf.shape} '.encode() + leaf.tobytes())
    return found.hexdigest()


def _embeddings(values: tuple[Params, Mutable], columns: Sequence) -> Embeddings:
    """What the classes of a zero-shot run were like."""
    own = values[1]['training']
    return Embeddings(own['vectors'], own['part'], tuple(map(tuple, columns)))


def _extended(
    new: Added, run: Path, config, spec: Spec, values: tuple[Params, Mutable]
) -> tuple[tuple[str, ...], tuple[Params, Mutable]]:
    """The classes to answer with, and the values whose candidates they are."""
    if spec.embeddings is None:
        raise ValueError(
            f'--run {run} is no zero-shot run: method {config.method!r} does not know what classes '
            'are like; see configs/zero_shot.py'
        )
    params, mutable = values
    known = () if new.only else spec.classes
    names, vectors = added.load(new.file, config.data.embeddings, spec.embeddings, known)
    candidates = {'vectors': vectors, 'seen': np.zeros(len(names), bool)}
    if not new.only:
        own = mutable['candidates']
        candidates = {key: np.concatenate([own[key], candidates[key]]) for key in candidates}
    return (*known, *names), (params, {**mutable, 'candidates': candidates})


def _by_image(found: Mapping[str, jax.Array]) -> list[dict[str, np.ndarray]]:
    """{task: [N, C]} -> N times {task: [C]}."""
    rows = zip(*map(np.asarray, found.values()), strict=True)
    return [dict(zip(found, row, strict=True)) for row in rows]


def _fit(config) -> str:
    """How the images became square that the run was tested on."""
    held = config.data.evaluate
    return held.get('test', next(iter(held.values()))).fit


def config_of(run: Path | str) -> ConfigDict:
    """The config of a run, from its directory."""
    whole = workdir.read_json(Path(run) / 'config.json')
    for other in ('start', 'tuning'):  # what the run starts from is no key of a config
        whole.pop(other, None)
    return ConfigDict(tuples(whole))


def results_of(run: Path) -> dict:
    """results.json of a finished run.

    Raises:
      ValueError: there is none in the directory.
    """
    if not run.is_dir():
        raise ValueError(f'--run {run}: there is no such directory')
    inner = sorted(str(file.parent) for file in run.glob('*/results.json'))
    if inner:
        raise ValueError(f'--run {run} holds several runs; choose one: {", ".join(inner)}')
    if not (run / 'config.json').exists():
        raise ValueError(f'--run {run} is not a run directory: it has no config.json')
    if not (run / 'results.json').exists():
        raise ValueError(
            f'--run {run} is not finished: it has no results.json; go on with the command that '
            'began it'
        )
    return workdir.read_json(run / 'results.json')


def find(paths: Sequence[str | Path]) -> list[Path]:
    """The image files that are named, or lie anywhere below the folders that are.

    Raises:
      ValueError: a path is not there, or a folder holds no images.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise ValueError(f'{path}: there is no such file or folder')
        inside = folder.images_below(path) if path.is_dir() else [path]
        if not inside:
            raise ValueError(f'{path}: holds no image files')
        found += map(Path, inside)
    return list(dict.fromkeys(found))


def predictions(model: Model, paths: Sequence[Path]) -> Iterator[Prediction]:
    """One prediction an image, in order; an image that cannot be decoded stops nothing."""
    compute = model.answers if model.tasks else model.probabilities
    return (Prediction(*one) for one in outputs(model, paths, compute))


def outputs(
    model: Model, paths: Sequence[Path], compute: Callable[[np.ndarray], Sequence]
) -> Iterator[tuple[Path, Any, str]]:
    """Of each image, in order, what `compute` makes of it, or None and what is wrong with it."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(paths), BLOCK):
            block = paths[start : start + BLOCK]
            decoded = list(pool.map(lambda path: _decoded(model, path), block))
            images = np.zeros((BLOCK, *model.image), np.uint8)
            for row, one in enumerate(decoded):
                images[row] = 0 if isinstance(one, str) else one
            for path, one, row in zip(block, decoded, compute(images), strict=False):
                yield (path, None, one) if isinstance(one, str) else (path, row, '')


def _decoded(model: Model, path: Path) -> np.ndarray | str:
    """The image as the run saw its own, or what is wrong with it."""
    try:
        image = decode.from_file(str(path), model.pixels)
    except ValueError as error:
        return str(error)
    if image.shape != model.image:
        sides = [f'{shape[1]}x{shape[0]}' for shape in (image.shape, model.image)]
        return f'{path}: is {sides[0]}, but the run was trained on images of {sides[1]}'
    return 255 - image if model.inverted else image


def ranked(probabilities: np.ndarray, classes: Sequence[str], top: int) -> list[tuple[str, float]]:
    """The `top` most probable classes with their probabilities."""
    order = np.argsort(-probabilities, kind='stable')[:top]
    return [(classes[i], float(probabilities[i])) for i in order]


def told(numbers: np.ndarray, task: Task, top: int) -> list[tuple[str, float]]:
    """What a task says of an image, of its numbers [C].

    The `top` most probable classes; of several labels all above 1/2, from the most probable; of a
    regression every value, in order.
    """
    if task.kind == 'regression':
        return [(name, float(value)) for name, value in zip(task.classes, numbers, strict=True)]
    several = task.kind == 'multilabel'
    return ranked(numbers, task.classes, int((numbers > 0.5).sum()) if several else top)
