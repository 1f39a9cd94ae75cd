"""Published weights: found or fetched, read safely, mapped to our names, and written back.

    params, mutable = pretrained.load('torchvision:ResNet18_Weights.IMAGENET1K_V1',
                                      ImageNetResNet(18), params, mutable)
    pretrained.export('mine.safetensors', ImageNetResNet(18), params, mutable)

Running variances: PyTorch's are unbiased and ours are not, which matters only to somebody who
goes on moving them with tiny batches.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from tljax import partition
from tljax.nets.pretrained import files, mapping
from tljax.nets.pretrained.architectures import described
from tljax.nets.pretrained.layouts import layouts
from tljax.nets.pretrained.location import KINDS, declared_input, is_published, locate
from tljax.types import Mutable, Params


def load(
    spec: str,
    net: nn.Module,
    params: Params,
    mutable: Mutable,
    *,
    take: str = 'encoder',
    drop: str = '',
) -> tuple[Params, Mutable]:
    """`(params, mutable)` with published weights in place of what `take` names; see `read`."""
    read_params, read_stats = read(spec, net, params, mutable, take=take, drop=drop)
    params, mutable = (
        partition.nested(
            partition.flat(tree) | {path: jnp.asarray(leaf) for path, leaf in new.items()}
        )
        for tree, new in ((params, read_params), (mutable, read_stats))
    )
    return params, mutable


def read(
    spec: str,
    net: nn.Module,
    params: Params,
    mutable: Mutable,
    *,
    take: str = 'encoder',
    drop: str = '',
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The published weights of what `take` names, by our paths.

    Everything must match. The source's classifier and auxiliary heads are known, and left alone
    unless `take` names the roles 'head', 'aux', 'aux1', 'aux2'.

    Args:
      spec: names the weights; see `locate`.
      net: the backbone in the role 'encoder', which says how the source's names map to ours.
      params: by role; arrays or shapes.
      mutable: by role.
      take: pattern over our paths, as `tljax.partition.select` reads it; statistics go with the
        module they belong to. '!' leaves out what the source does not have.
      drop: pattern over the source's names, of what to ignore there: 'AuxLogits|fc.bias'.

    Returns:
      {path: array} of the parameters, and of the statistics.

    Raises:
      ValueError: the weights can't be had, or something is unmatched or has another shape; the
        message lists the names.
    """
    _check_input(spec, net)
    arrays = _without(_read(spec, net), drop, spec)
    trees = partition.flat(params), partition.flat(mutable)
    ours = {path: leaf for tree in trees for path, leaf in tree.items() if _is_weight(path, leaf)}
    # Of a family's layouts the one that fits best; what is wrong is then told in its terms.
    options = [(rules, mapping.names(ours, rules)) for rules in layouts(net)]
    rules, wanted = max(options, key=lambda one: len(set(one[1].values()) & set(arrays)))
    arrays = mapping.unfolded(wanted, arrays, getattr(net, 'epsilon', 1e-5))
    chosen = partition.select(params, take) | {
        path for path in ours if partition.matches(partition.module_path(path), take)
    }
    _check(spec, rules, wanted, chosen, arrays)
    found = {path: mapping.to_ours(path, arrays[wanted[path]]) for path in sorted(chosen)}
    found = {path: _fitted(spec, path, leaf, ours[path].shape) for path, leaf in found.items()}
    return tuple({path: found[path] for path in sorted(chosen & set(tree))} for tree in trees)


def _read(spec: str, net: nn.Module) -> dict[str, np.ndarray]:
    return files.read(locate(spec, getattr(net, 'output_stride', 32)))


def classifier(spec: str, net: nn.Module) -> dict[str, np.ndarray] | None:
    """The source's own classifier: 'kernel' [D, Z] and 'bias' [Z], or None if it has none.

    Args:
      spec: names the weights; see `locate`.
      net: the backbone that they are of.
    """
    arrays = _read(spec, net)
    for rules in layouts(net):
        wanted = {leaf: mapping.source_name(f'head/{leaf}', rules) for leaf in ('kernel', 'bias')}
        if all(name in arrays for name in wanted.values()):
            return {
                leaf: mapping.to_ours(f'head/{leaf}', arrays[name]) for leaf, name in wanted.items()
            }
    return None


def export(path: Path | str, net: nn.Module, params: Params, mutable: Mutable) -> None:
    """Writes parameters and statistics as safetensors, in the layout of the net's usual source.

    Reading them again gives the same bits, and so does PyTorch's `load_state_dict`.

    Args:
      path: of the file to write; ends in .safetensors.
      net: the backbone in the role 'encoder'.
      params: by role; the role 'head' becomes the source's classifier, which must be `Linear`.
      mutable: by role.

    Raises:
      ValueError: another ending, a role that the layout does not know, or safetensors is missing.
    """
    leaves = {
        path: np.asarray(leaf)
        for tree in (params, mutable)
        for path, leaf in partition.flat(tree).items()
        if _is_weight(path, leaf)
    }
    names = mapping.names(leaves, layouts(net)[0])
    if bare := sorted(set(leaves) - set(names)):
        raise ValueError(f'the source has no name for {_listed(bare)}; leave their role out')
    files.write(
        Path(path), {names[one]: mapping.to_theirs(one, leaf) for one, leaf in leaves.items()}
    )


def _check_input(spec: str, net: nn.Module) -> None:
    """Warns of images normalised otherwise than the weights expect: only accuracy would tell."""
    for key, theirs in declared_input(spec).items():
        ours = np.broadcast_to(getattr(net.input, key), len(theirs))
        if not np.allclose(ours, theirs, atol=1e-3):
            warnings.warn(
                f'{spec} was trained on images of {key} {theirs}, but the net declares '
                f'{getattr(net.input, key)}; set net.input.{key}',
                stacklevel=3,
            )


def _is_weight(path: str, leaf) -> bool:
    # Empty nodes have no shape; markers of dropout are no weights.
    return hasattr(leaf, 'shape') and not path.endswith('/on')


def _without(arrays: Mapping[str, np.ndarray], drop: str, spec: str) -> dict[str, np.ndarray]:
    """The arrays whose names `drop` does not match."""
    if not drop:
        return dict(arrays)
    as_paths = {name.replace('.', '/'): name for name in arrays}
    dropped = partition.select(as_paths, drop.replace('.', '/'))
    return {name: arrays[name] for path, name in as_paths.items() if path not in dropped}


def _check(spec: str, rules, wanted: Mapping[str, str], chosen, arrays) -> None:
    """Raises ValueError if anything is left over on either side."""
    missing = [
        f'{path} ({wanted.get(path, "no such thing in the source")})'
        for path in sorted(chosen)
        if wanted.get(path) not in arrays
    ]
    extra = sorted(
        name
        for name in set(arrays) - set(wanted.values())
        if not mapping.belongs_elsewhere(name, rules)
    )
    lines = [f'{spec} does not fit the net:']
    if missing:
        lines.append(f'  it lacks {_listed(missing)}; leave them out with ! in the pattern')
    if extra:
        lines.append(f'  it has, and the net has not, {_listed(extra)}; drop them by name')
    if len(lines) > 1:
        raise ValueError('\n'.join(lines))


def _listed(names: list[str], most: int = 12) -> str:
    rest = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + rest


def _fitted(spec: str, path: str, leaf: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) == 2 and leaf.ndim == 4:
        # A dense layer that the source has as a convolution over the whole map.
        leaf = leaf.transpose(2, 0, 1, 3).reshape(-1, leaf.shape[-1])
    if leaf.shape != tuple(shape):
        hint = ''
        if path.startswith('head/'):
            hint = '; for other classes leave the head out, so that it starts anew'
        elif path.endswith('/positions'):
            hint = '; give the net images of the size it was trained with'
        raise ValueError(f'{spec}: {path} has shape {leaf.shape} there, {tuple(shape)} here{hint}')
    return leaf


__all__ = [
    'KINDS',
    'classifier',
    'described',
    'export',
    'is_published',
    'load',
    'locate',
    'read',
]
