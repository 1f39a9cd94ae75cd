"""A backbone's values: of published weights, or of an earlier run."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tljax import config as configs
from tljax import initial, partition, workdir
from tljax.nets import pretrained
from tljax.types import PyTree


def net_of(weights: str) -> dict[str, Any]:
    """The net that weights are of, as config.net has it.

    Raises:
      ValueError: there are no such weights, or they do not tell.
    """
    if pretrained.is_published(weights):
        return pretrained.described(weights)
    return _config(weights)['net']


def told(text: str) -> dict[str, Any]:
    """A net written as JSON: '{"name": "cifar_resnet", "depth": 20}'.

    Raises:
      ValueError: it is not JSON, or no object.
    """
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f'--net: {text!r} is not JSON ({error})') from None
    if not isinstance(found, dict):
        raise ValueError(f'--net: {text!r} is not an object, such as {{"name": "vgg"}}')
    return found


def pixels_of(weights: str) -> dict[str, Any]:
    """What a run made images into: 'size' and 'channels', 0 as the net declares, and 'fit'.

    Published weights leave it to the net.
    """
    data = configs.default().data.to_dict()
    if not pretrained.is_published(weights):
        data |= _config(weights)['data']
    return {name: data[name] for name in ('size', 'channels', 'fit')}


def values(
    weights: str,
    backbone: nn.Module,
    image: tuple[int, ...],
    *,
    until: Sequence[str] = ('features',),
    drop: str = '',
    member: int = 0,
) -> PyTree:
    """A backbone's variables, as `backbone.apply` takes them, with these weights.

    Args:
      weights: published ones, or a run's directory.
      backbone: that they are of.
      image: the shape of one image.
      until: the endpoints that are wanted: a run may lack the layers behind the last of them.
      drop: names in published weights to ignore.
      member: of a run.

    Raises:
      ValueError: they are not there or do not fit.
    """
    images = jax.ShapeDtypeStruct((2, *image), jnp.float32)
    shapes, needed = (
        jax.eval_shape(partial(backbone.init, until=ends), jax.random.key(0), images)
        for ends in (backbone.endpoints, tuple(until))
    )
    stats = {name: tree for name, tree in shapes.items() if name != 'params'}
    if pretrained.is_published(weights):
        roles = {'encoder': shapes['params']}, {'encoder': stats}
        params, mutable = pretrained.load(weights, backbone, *roles, drop=drop)
    else:
        params, mutable = _of_run(Path(weights), member)
    found = {'params': params.get('encoder', {}), **mutable.get('encoder', {})}
    whole, needed, there = map(_shapes, (shapes, needed, found))
    for path in sorted({**needed, **there}):
        theirs, ours = (of.get(path, 'absent') for of in (there, whole))
        if theirs != ours:
            raise ValueError(
                f'{weights}: {path} is {theirs} there and {ours} here; give its net, and endpoints '
                'that it has the layers of'
            )
    # Marks of dropout, which hold nothing, stay shapes.
    return jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else x, found
    )


def _shapes(tree: PyTree) -> dict[str, list[int]]:
    """Shapes by path, without empty nodes."""
    leaves = partition.flat(dict(tree)).items()
    return {path: list(leaf.shape) for path, leaf in leaves if hasattr(leaf, 'shape')}


def _config(weights: str) -> dict[str, Any]:
    """config.json of a run that weights are of."""
    if not (Path(weights) / 'checkpoints').is_dir():
        kinds = ', '.join(f'{kind}:' for kind in pretrained.KINDS)
        raise ValueError(
            f'weights {weights}: expected a run directory with checkpoints, or {kinds}'
        )
    return workdir.read_json(Path(weights) / 'config.json')


def _of_run(run: Path, member: int) -> tuple[PyTree, PyTree]:
    """`(params, mutable)` of one member of a run."""
    _config(str(run))
    count = len(workdir.read_json(run / 'results.json')['members'])
    if not 0 <= member < count:
        raise ValueError(f'member {member}: {run} has the members 0..{count - 1}')
    return jax.tree.map(lambda x: x[member], initial.trained(run))


def same(some: PyTree, whole: PyTree) -> bool:
    """Whether variables are some of the variables of a whole net."""
    every = partition.flat(dict(whole))
    return all(
        path in every and np.array_equal(leaf, every[path])
        for path, leaf in partition.flat(dict(some)).items()
        if hasattr(leaf, 'shape')
    )
