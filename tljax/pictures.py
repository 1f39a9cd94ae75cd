"""What a run shows of itself, in `figures/`: pictures of its method, and where features lie.

NAME.png, NAME.txt   a grid of images, and its caption
features.npz         t-SNE of features of both domains: place [P, 2], label [P], -1 where it is not
                     known, target [P] bool
"""

import io
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from tljax import workdir
from tljax.data.streams import Stream
from tljax.prepare import Prepared
from tljax.types import Picture, PyTree

SHOWN = 20  # images of a domain in a grid
ACROSS = 10  # of them side by side
SIDE = 56  # pixels of an image in a grid, at least
POINTS = 300  # features of a domain


def leave(prepared: Prepared, values: tuple[PyTree, PyTree], directory: Path) -> None:
    """Writes what the first member shows, if the run has two domains.

    Args:
      prepared: the run.
      values: `(params, mutable)` after it, member axis in front.
      directory: the run's.
    """
    domains = domains_of(prepared)
    if not domains:
        return
    folder, own = directory / 'figures', jax.tree.map(lambda x: x[0], values)
    folder.mkdir(exist_ok=True)
    for name, picture in prepared.method.pictures.items():
        write_picture(folder / name, picture, own, domains[picture.domain])
    write_features(folder / 'features.npz', prepared, own, domains)


def domains_of(prepared: Prepared) -> dict[str, Stream]:
    """Where images of the 'source' and the 'target' come from, in a run that adapts to a target.

    Held-out ones where there are any: the streams 'test' for the target, 'val' for the source. A
    target without labels has no 'test'.
    """
    streams, held = prepared.streams, prepared.held
    if 'target' not in {**streams, **held}:
        return {}
    target = next(
        one for one in (held.get('test'), streams.get('target'), held.get('target')) if one
    )
    return {'source': held['val'] if 'val' in held else streams['source'], 'target': target}


def sample(stream: Stream, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, ...] and labels [N] of up to `count` examples that the first member may see.

    Evenly spaced, without a look at labels: in a set that is sorted by class all classes come in.
    """
    total = int(stream.count[0])
    entry = np.linspace(0, total - 1, min(count, total)).round().astype(int)
    row = stream.order[0][entry]
    if stream.cached:
        images = stream.image[0, entry]
    elif stream.resident:
        images = stream.image[row]
    else:
        images = np.stack([stream.source.fetch(int(one)) for one in row])
    return images, stream.source.labels[row]


def write_picture(path: Path, picture: Picture, values: tuple, stream: Stream) -> None:
    images, _ = sample(stream, SHOWN)
    shown = jax.jit(picture.draw)(*values, jnp.asarray(images))
    file = io.BytesIO()
    Image.fromarray(grid(np.asarray(shown))).save(file, 'png')
    with workdir.replaced(path.with_suffix('.png')) as draft:
        draft.write_bytes(file.getvalue())
    note = f'{picture.caption} From {stream.source.name}, evenly spaced; first member.'
    workdir.write_text(path.with_suffix('.txt'), note)


def grid(images: np.ndarray) -> np.ndarray:
    """A picture of images in [0, 1], versions of one under each other: uint8 [h, w, 3].

    Args:
      images: [N, V, H, W, C].
    """
    count, versions, *_, channels = images.shape
    scale = -(-SIDE // images.shape[2])
    images = np.clip(np.rint(255 * images), 0, 255).astype(np.uint8)
    images = images.repeat(scale, 2).repeat(scale, 3).repeat(3 // channels, 4)
    images = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    across = min(ACROSS, count)
    images = np.pad(images, ((0, -count % across), *[(0, 0)] * 4), constant_values=255)
    height, width = images.shape[2:4]
    bands = images.reshape(-1, across, versions, height, width, 3).transpose(0, 2, 3, 1, 4, 5)
    bands = bands.reshape(-1, versions * height, across * width, 3)
    gap = np.pad(bands, ((0, 0), (0, 2 * scale), (0, 0), (0, 0)), constant_values=255)
    return gap.reshape(-1, across * width, 3)[: -2 * scale]


def write_features(path: Path, prepared: Prepared, values: tuple, domains: dict) -> None:
    """Where features lie, for both domains together, each by its own way through the nets."""
    method, features, labels = prepared.method, [], []
    target = method.phases[-1].predict or method.predict
    ways = {'source': method.predict_source or target, 'target': target}
    for domain, stream in domains.items():
        predict, (images, label) = jax.jit(ways[domain]), sample(stream, POINTS)
        features.append(np.asarray(predict(*values, jnp.asarray(images))['features']))
        labels.append(label if stream.labelled else np.full_like(label, -1))
    target = np.repeat([False, True], [len(label) for label in labels])
    file = io.BytesIO()
    place = t_sne(np.concatenate(features))
    np.savez(file, place=place, label=np.concatenate(labels), target=target)
    with workdir.replaced(path) as draft:
        draft.write_bytes(file.getvalue())


def t_sne(features: np.ndarray) -> np.ndarray:
    """Points in the plane with the neighbours of the features: [N, D] -> [N, 2] float32.

    Van der Maaten and Hinton, 2008, "Visualizing data using t-SNE", JMLR 9, as scikit-learn has it.
    """
    from sklearn.manifold import TSNE  # half a second to import
    from threadpoolctl import threadpool_limits

    # Features that have collapsed to one point have no principal components to begin with.
    start = 'pca' if np.ptp(features, 0).max() > 0 else 'random'
    perplexity = min(30.0, (len(features) - 1) / 3)
    with threadpool_limits(
        1
    ):  # so few points are slower on several threads, on a busy machine much
        return TSNE(perplexity=perplexity, init=start, random_state=0).fit_transform(features)
