"""The engine of layouts: our paths to a source's names, and arrays from one order to the other."""

import re
from collections.abc import Iterable, Mapping

import numpy as np

from tljax import partition
from tljax.nets.pretrained.layouts import Rules

LEAVES = {
    'kernel': 'weight',
    'scale': 'weight',
    'bias': 'bias',
    'mean': 'running_mean',
    'var': 'running_var',
}


def source_name(path: str, rules: Rules) -> str | None:
    """What a source calls a leaf of ours; None if no rule covers it.

    Example: with the rule 'stage{i}/block{j}/conv': 'layer{i}.{j-1}.conv',
    'encoder/stage2/block1/conv/kernel' is 'layer2.0.conv.weight'.

    Args:
      path: 'role/module/leaf'.
      rules: of a layout; none: dots for slashes.
    """
    path = partition.module_path(path).removeprefix('encoder/')
    module, _, leaf = path.rpartition('/')
    if leaf not in LEAVES:
        return _translate(path, rules)
    module = _translate(module, rules)
    return module and f'{module}.{LEAVES[leaf]}'


def _translate(path: str, rules: Rules) -> str | None:
    if not rules:
        return path.replace('/', '.')
    for ours, theirs in rules.items():
        if found := re.fullmatch(re.sub(r'\{(\w+)\}', r'(?P<\1>\\w+)', ours), path):
            return re.sub(r'\{(\w+)(-1)?\}', lambda field: _fill(found, field), theirs)
    return None


def _fill(found: re.Match, field: re.Match) -> str:
    word = found[field[1]]
    return str(int(word) - 1) if field[2] else word


def names(paths: Iterable[str], rules: Rules) -> dict[str, str]:
    """{our path: their name} of all paths that a rule covers."""
    found = {path: source_name(path, rules) for path in paths}
    return {path: name for path, name in found.items() if name is not None}


def belongs_elsewhere(name: str, rules: Rules) -> bool:
    """Whether a source's name is in another role: in its classifier or an auxiliary head."""
    if not rules:
        return name.startswith('head.')
    for ours, theirs in rules.items():
        if ours.partition('/')[0] == 'head' or ours.startswith('aux'):
            pattern = re.sub(r'\\\{\w+(\\-1)?\\\}', r'\\w+', re.escape(theirs))
            if re.fullmatch(rf'{pattern}\.\w+', name):
                return True
    return False


def to_ours(path: str, array: np.ndarray) -> np.ndarray:
    """A source's array in our order, in float32.

    Convolutions [O, I, h, w] -> [h, w, I, O], dense layers [O, I] -> [I, O]; a dense layer that
    the source has as a convolution over the whole map is flattened as PyTorch does it.
    """
    array = np.asarray(array, np.float32)
    if not path.endswith('/kernel'):
        return array
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def to_theirs(path: str, array: np.ndarray) -> np.ndarray:
    """The inverse of `to_ours`."""
    if not path.endswith('/kernel'):
        return array
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def unfolded(
    wanted: Mapping[str, str], arrays: Mapping[str, np.ndarray], epsilon: float
) -> dict[str, np.ndarray]:
    """`arrays` with norms restored that the source has folded into its convolutions.

    Such a source has a bias at the convolution and no norm. The norm becomes the identity with
    that bias: scale sqrt(1 + epsilon), mean 0, variance 1.

    Args:
      wanted: {our path: their name}.
      arrays: by their names.
      epsilon: of our norms.
    """
    result, values = dict(arrays), {'scale': np.sqrt(1 + epsilon), 'mean': 0.0, 'var': 1.0}
    ours = {partition.module_path(path): name for path, name in wanted.items()}
    for path, name in ours.items():
        module, _, leaf = path.rpartition('/')
        if not module.endswith('/norm') or name in arrays or leaf != 'scale':
            continue
        conv = module.removesuffix('/norm') + '/conv'
        bias = ours.get(f'{conv}/kernel', '').removesuffix('weight') + 'bias'
        if bias not in arrays or f'{conv}/bias' in ours:
            continue
        shift = result.pop(bias)
        for leaf, value in values.items():
            result[ours[f'{module}/{leaf}']] = np.full_like(shift, value)
        result[ours[f'{module}/bias']] = shift
    return result
