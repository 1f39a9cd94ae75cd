"""Features of whole data sets: computed once, kept on disk, never used once they are stale.

    found = features.extract('torchvision:ResNet18_Weights.IMAGENET1K_V1', None, 'folder:pets',
                             'train', ('stage3', 'features'), pool='mean', root='runs/features')
    found.arrays['features']  # [N, 512], memory-mapped
    found.labels              # [N]

All endpoints that are not there yet come from one forward pass. A store knows what features are of
by the values of all weights, the net and its input, the files of the images and how these are
decoded, the endpoint and the pooling: if any of it changes, they are other features.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from tljax import backbones, hosts, partition, sharding, store, workdir
from tljax.console import Show, say
from tljax.data import decode, fingerprint, sources
from tljax.data import streams as data
from tljax.methods.networks import check_images, check_readout, encoder
from tljax.nets.pooling import pool
from tljax.types import Array, PyTree

FORMAT = 1  # counts up when the same settings give other features


class Features(NamedTuple):
    """What a backbone makes of a data set."""

    arrays: Mapping[str, np.ndarray]  # endpoint -> [N, ...] float32
    labels: np.ndarray  # [N] int32
    classes: tuple[str, ...]
    folder: Path  # where the arrays lie, as .npy files


def key(
    source: sources.Source,
    dataset: str,
    split: str,
    pixels: decode.Pixels,
    data_dir: str = '',
    sample: int = 0,
) -> dict[str, Any]:
    """JSON that tells the images of a source from all others; see `sources.load` and `sampled`."""
    return {
        'split': split,
        'sample': sample,
        'classes': list(source.classes),
        'contents': fingerprint.of(dataset, source, data_dir or None),
        'pixels': {**pixels._asdict(), 'image': list(source.image)},
    }


def extract(
    weights: str,
    net: Mapping[str, Any] | None,
    dataset: str,
    split: str,
    endpoints: Sequence[str],
    *,
    root: Path | str,
    pool: str = 'mean',
    size: int = 0,
    channels: int = 0,
    fit: str = '',
    classes: Sequence[int | str] = (),
    data_dir: str = '',
    drop: str = '',
    member: int = 0,
    block: int = 64,
    devices: int = 0,
) -> Features:
    """Features of a whole data set, from the store or computed into it.

    A killed extraction goes on where it stopped when it is asked for again.

    Args:
      weights: published weights ('torchvision:...'; see `pretrained.locate`), or a run directory.
      net: the backbone as config.net has it; None: what the weights tell.
      dataset: one string, see `sources.load`.
      split: of the data set.
      endpoints: of the backbone.
      root: the store's folder.
      pool: of `nets.pooling.POOLINGS`, for endpoints that are maps or tokens.
      size: side of the images in pixels; 0: that of the run's images, or what the net declares.
      channels: of the images; 0: in the same way.
      fit: how an image becomes square; '': as in the run, or 'crop'.
      classes: those to keep; (): all.
      data_dir: of prepared TFDS sets.
      drop: names in the published weights to ignore.
      member: which of a run directory's members.
      block: images at once, over all devices.
      devices: how many; 0: all.

    Raises:
      ValueError: an endpoint, a pooling, weights or data that are not there; weights that do not
        fit the net; a store that is damaged, cannot be written or has no room.
    """
    backbone = encoder(ConfigDict({'net': dict(net or backbones.net_of(weights))}))
    if not endpoints:
        raise ValueError(f'no endpoint asked for; there are {", ".join(backbone.endpoints)}')
    check_readout(backbone, endpoints, pool)
    if block < 1:
        raise ValueError(f'block is {block}; expected 1 or more images')
    theirs, wanted = backbones.pixels_of(weights), backbone.input
    pixels = decode.Pixels(
        size or theirs['size'] or wanted.size,
        channels or theirs['channels'] or wanted.channels,
        fit or theirs['fit'],
    )
    source = sources.load(
        dataset,
        split,
        **pixels._asdict(),
        classes=tuple(classes) or None,
        data_dir=data_dir or None,
    )
    last = max(endpoints, key=backbone.endpoints.index)
    check_images(backbone, source.image, last)
    of = {'until': endpoints, 'drop': drop, 'member': member}
    variables = backbones.values(weights, backbone, source.image, **of)
    arrays, folder = kept(
        backbone,
        variables,
        source,
        key(source, dataset, split, pixels, data_dir),
        endpoints,
        root=root,
        pooling=pool,
        block=block,
        mesh=sharding.mesh(devices),
        about={'weights': weights, 'dataset': dataset, 'split': split},
    )
    return Features(arrays, source.labels, source.classes, folder)


def kept(
    backbone: nn.Module,
    variables: PyTree,
    source: sources.Source,
    of: Mapping[str, Any],
    endpoints: Sequence[str],
    *,
    root: Path | str,
    pooling: str,
    mesh: jax.sharding.Mesh,
    block: int = 64,
    also: Sequence[str] = (),
    about: Mapping[str, Any] | None = None,
) -> tuple[dict[str, np.ndarray], Path]:
    """Features from the store, what it lacks computed into it; and their folder.

    Args:
      backbone: declares how images are normalised.
      variables: of the backbone; those of layers after the last endpoint may be missing.
      source: the images.
      of: their `key`.
      endpoints: of the backbone.
      root: the store's folder.
      pooling: of maps and tokens.
      mesh: the devices that share a block.
      block: images at once.
      also: endpoints to keep from the same forward pass, if one has to be made.
      about: JSON for people who find the folder.

    Raises:
      ValueError: the store is damaged, cannot be written or has no room, or several hosts would
        have to write it.
    """
    family = type(backbone).__name__.lower()
    whole = {'format': FORMAT, 'net': {'family': family, **_fields(backbone)}}
    whole |= {'weights': _digest(variables), 'data': dict(of)}
    folder = store.shelf(root, family, whole)
    every = tuple(dict.fromkeys((*endpoints, *also)))
    shapes = _shapes(backbone, variables, source, every, pooling)
    names = {one: f'{one}-{pooling}' if of_map else one for one, (_, of_map) in shapes.items()}

    def missing(asked: Sequence[str]) -> list[str]:
        return [one for one in asked if store.load(folder, names[one], shapes[one][0]) is None]

    if missing(endpoints):
        if hosts.count() > 1:
            raise ValueError(
                f'{folder} lacks {", ".join(missing(endpoints))}, and several hosts cannot fill '
                'one store; run launch/extract.py on one of them first, or leave features.root out'
            )
        waiting = partial(say, f'{folder}: another process computes these features; waiting')
        with workdir.held(folder, 'features', waiting):
            if missing(endpoints):  # still, now that nobody else writes
                store.claim(folder, whole, about or {})
                _write_labels(folder, source)
                wanted = missing(every)
                with store.Writer(folder, {names[one]: shapes[one][0] for one in wanted}) as writer:
                    run = (backbone, variables, source, wanted, pooling, mesh, block)
                    for found in computed(*run, first=writer.rows):
                        writer.append({names[one]: array for one, array in found.items()})
                    writer.finish()
    arrays = {one: store.load(folder, names[one], shapes[one][0]) for one in endpoints}
    return arrays, folder


def all_of(
    backbone: nn.Module,
    variables: PyTree,
    source: sources.Source,
    endpoint: str,
    *,
    pooling: str,
    mesh: jax.sharding.Mesh,
    block: int,
) -> np.ndarray:
    """[N, ...] features of a source at one endpoint, in memory."""
    blocks = computed(backbone, variables, source, (endpoint,), pooling, mesh, block)
    return np.concatenate([found[endpoint] for found in blocks])


def computed(
    backbone: nn.Module,
    variables: PyTree,
    source: sources.Source,
    endpoints: Sequence[str],
    pooling: str,
    mesh: jax.sharding.Mesh,
    block: int,
    first: int = 0,
) -> Iterator[dict[str, np.ndarray]]:
    """Features of a source from row `first` on, block by block, from one pass a block.

    Images are decoded, blocks computed and the one before taken over at the same time.

    Yields:
      {endpoint: [B, ...] float32}.
    """
    total = len(source.labels)
    size = sharding.divisible(mesh, min(block, total))
    stream = data.Stream('features', source, *data.select(source, [0], [0]), size)
    variables = jax.device_put(variables, sharding.replicated(mesh))

    def launched() -> Iterator[tuple[int, dict]]:
        start = first // size * size
        own = sharding.rows(mesh, size)
        for _, shared in data.blocks(stream, size, first // size, own) if first < total else ():
            images = sharding.placed(mesh, shared['image'], size)
            yield start, encoded(backbone, variables, images, tuple(endpoints), pooling)
            start += size

    with Show(source.name, total, 'image') as show:
        for start, arrays in data.ahead(launched()):
            cut = slice(max(first - start, 0), total - start)
            arrays = hosts.local(arrays)
            yield {name: np.asarray(array)[cut] for name, array in arrays.items()}
            show.step(min(start + size, total), {})


@partial(jax.jit, static_argnums=(0, 3, 4))
def encoded(
    backbone: nn.Module, variables: PyTree, images: Array, endpoints: tuple[str, ...], pooling: str
) -> dict[str, Array]:
    """Endpoints of images [N, H, W, C], pooled: {endpoint: [N, ...]} float32."""
    normalised = backbone.input.normalise(images)
    found = backbone.apply(variables, normalised, until=endpoints)
    return {name: pool(x, pooling) for name, x in found.items()}


def _shapes(backbone, variables, source, endpoints, pooling) -> dict[str, tuple]:
    """endpoint -> its array's shape, and whether it is one of maps, which pooling changes."""
    image = jax.ShapeDtypeStruct((1, *source.image), source.dtype)
    whole, pooled = (
        jax.eval_shape(
            lambda *of, how=how: encoded(backbone, *of, tuple(endpoints), how), variables, image
        )
        for how in ('none', pooling)
    )
    count = len(source.labels)
    return {one: ((count, *pooled[one].shape[1:]), whole[one].ndim > 2) for one in endpoints}


def _digest(variables: PyTree) -> str:
    """SHA-256 of all names, shapes, types and values."""
    found = hashlib.sha256()
    for path, leaf in sorted(partition.flat(dict(variables)).items()):
        if not hasattr(leaf, 'shape'):  # an empty node
            continue
        array = np.asarray(leaf)
        found.update(f'{path} {array.dtype} {array.shape} '.encode() + array.tobytes())
    return found.hexdigest()


def _fields(backbone: nn.Module) -> dict[str, Any]:
    """All options of a backbone, defaults too, as JSON."""
    names = {field.name for field in dataclasses.fields(backbone)} - {'parent', 'name'}
    return {name: getattr(backbone, name) for name in sorted(names)}


def _write_labels(folder: Path, source: sources.Source) -> None:
    """labels.npy, and of image files rows.txt, the place of each: for other programs."""
    with workdir.replaced(folder / 'labels.npy') as draft, draft.open('wb') as file:
        np.save(file, source.labels)
    if source.keys is not None:
        workdir.write_text(folder / 'rows.txt', ''.join(f'{key}\n' for key in source.keys))
