"""Weight files of any kind to {source's name: array}, and back."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tljax.nets.pretrained import torchfile

WRAPPERS = 'module.', '_orig_mod.'  # of several devices, of a compiled model
TORCH = ('.pth', '.pt', '.th', '.tar', '.bin', '.ckpt')


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a weight file.

    Prefixes that wrappers of a model put before all names ('module.') are taken away, and the step
    counters of norms are left out.

    Args:
      path: .safetensors, .npz (an array a name), or a state dict of PyTorch: .pth, .pt, .th, .tar.

    Raises:
      ValueError: no such file, of another kind, or damaged.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f'{path}: no such file')
    if path.suffix == '.safetensors':
        arrays = _safetensors(path)
    elif path.suffix == '.npz':
        arrays = _npz(path)
    elif path.suffix in TORCH:
        arrays = torchfile.read(path)
    else:
        known = ', '.join(('.safetensors', '.npz', *TORCH))
        raise ValueError(f'{path}: weight files end in {known}')
    around = lambda prefix: arrays and all(name.startswith(prefix) for name in arrays)
    while prefix := next(filter(around, WRAPPERS), ''):
        arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
    return {n: array for n, array in arrays.items() if not n.endswith('num_batches_tracked')}


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a .safetensors file.

    Raises:
      ValueError: another ending, or the library is not installed.
    """
    path = Path(path).expanduser()
    if path.suffix != '.safetensors':
        raise ValueError(f'{path}: weights are exported to a file that ends in .safetensors')
    library = _library(path)
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    try:  # the metadata tells PyTorch's readers what they have
        library.save_file(arrays, path, metadata={'format': 'pt'})
    except Exception as error:  # the library's own error class is no stable name
        raise ValueError(f'{path} cannot be written: {error}') from error


def _library(path: Path):
    try:
        import safetensors.numpy
    except ImportError:
        raise ValueError(f"{path}: needs safetensors; pip install -e '.[hub]'") from None
    return safetensors.numpy


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    library = _library(path)
    try:
        return library.load_file(path)
    except Exception as error:  # the library's own error class is no stable name
        raise ValueError(f'{path}: not a safetensors file, or damaged ({error})') from error


def _npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except Exception as error:  # np.load raises whatever its zip and npy readers raise
        raise ValueError(f'{path}: not an .npz file of plain arrays ({error})') from error
