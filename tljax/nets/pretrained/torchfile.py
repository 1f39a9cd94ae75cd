"""Reads PyTorch's checkpoints without PyTorch, and without executing what is in them.

A checkpoint is a pickle, and a pickle is a program: loading one as such runs whatever its author
wished. The reader here lets it build plain containers and *descriptions* of tensors, and nothing
else; the numbers are then read from where the descriptions point, within bounds. Both of PyTorch's
formats are read: the zip files of 1.6 and later, and the sequence of pickles before.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

DTYPES = {
    'DoubleStorage': np.dtype(np.float64),
    'FloatStorage': np.dtype(np.float32),
    'HalfStorage': np.dtype(np.float16),
    'BFloat16Storage': np.dtype(ml_dtypes.bfloat16),
    'LongStorage': np.dtype(np.int64),
    'IntStorage': np.dtype(np.int32),
    'ShortStorage': np.dtype(np.int16),
    'CharStorage': np.dtype(np.int8),
    'ByteStorage': np.dtype(np.uint8),
    'BoolStorage': np.dtype(np.bool_),
}
# Where training scripts keep the state dict inside a checkpoint, in this order.
NESTS = ('state_dict', 'model', 'model_state_dict', 'state_dict_ema', 'net')
MAGIC = 0x1950A86A20F9469CFC6C  # begins the older format


class Storage(NamedTuple):
    """Numbers in the file: key, and the name of their kind."""

    key: str
    kind: str
    count: int


class Tensor(NamedTuple):
    """A view of a storage; sizes are in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(path: Path) -> dict[str, np.ndarray]:
    """The state dict of a checkpoint, by the source's names.

    Args:
      path: of a file that `torch.save` wrote: a state dict, or a dict that has one as 'state_dict',
        'model' or the like.

    Raises:
      ValueError: no such file, the checkpoint wants to call anything, is damaged, or has no state
        dict.
    """
    try:
        with open(path, 'rb') as file:
            if zipfile.is_zipfile(file):
                return _from_zip(path, file)
            file.seek(0)
            return _from_pickles(path, file)
    except Refused as error:
        raise ValueError(
            f'{path}: asks for {error} on loading, which could run anything; only plain tensors '
            "are read. If you trust its author, load it in PyTorch and save the model's "
            'state_dict() with safetensors'
        ) from None
    except ValueError:
        raise
    # A damaged or hostile pickle can make the unpickler raise almost anything.
    except Exception as error:
        raise ValueError(f'{path}: not a PyTorch checkpoint, or damaged ({error!r})') from error


class Refused(Exception):
    """The pickle wants something that is not on the list."""


class Reader(pickle.Unpickler):
    """An unpickler that knows how to make containers and descriptions, and nothing else."""

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding='utf-8')

    def find_class(self, module: str, name: str) -> Callable:
        # New functions at each look-up: a pickle may set attributes of what it is given, and that
        # must not outlive this load.
        if module in ('torch', 'torch.cuda') and name in DTYPES:
            return lambda: name
        known = {
            ('collections', 'OrderedDict'): OrderedDict,
            ('torch', 'Size'): lambda sizes=(): tuple(sizes),
            ('torch', 'device'): lambda *names: ':'.join(map(str, names)),
            ('torch._utils', '_rebuild_tensor'): _describe(),
            ('torch._utils', '_rebuild_tensor_v2'): _describe(),
            ('torch._utils', '_rebuild_parameter'): lambda data, *rest: data,
        }
        if (module, name) not in known:
            raise Refused(f'{module}.{name}')
        return known[module, name]

    def persistent_load(self, pid: Any) -> Storage:
        what, kind, key, _, count, *view = pid
        if what != 'storage' or any(view):
            raise Refused(f'a persistent {what!r}')
        return Storage(str(key), kind(), int(count))


def _describe() -> Callable:
    return lambda storage, offset, shape, strides, *rest: Tensor(
        storage, offset, tuple(shape), tuple(strides)
    )


def _from_zip(path: Path, file: BinaryIO) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.endswith('data.pkl')]
        if len(names) != 1:
            raise ValueError(f'{path}: a zip file, but not one that torch.save wrote')
        prefix = names[0].removesuffix('data.pkl')
        if f'{prefix}constants.pkl' in archive.namelist():
            raise ValueError(f'{path}: a TorchScript program; save its state_dict() instead')
        order = f'{prefix}byteorder'
        if order in archive.namelist() and archive.read(order) != b'little':
            raise ValueError(f'{path}: written on a big-endian machine; save it again on another')
        with archive.open(names[0]) as pickled:
            tensors = _state_dict(path, Reader(pickled).load())
        keys = {tensor.storage.key for tensor in tensors.values()}
        data = {key: archive.read(f'{prefix}data/{key}') for key in keys}
    return {name: _view(path, name, tensor, data) for name, tensor in tensors.items()}


def _from_pickles(path: Path, file: BinaryIO) -> dict[str, np.ndarray]:
    if Reader(file).load() != MAGIC:
        raise ValueError(f'{path}: not a PyTorch checkpoint')
    _, system, value = (Reader(file).load() for _ in range(3))
    if not system['little_endian']:
        raise ValueError(f'{path}: written on a big-endian machine; save it again on another')
    tensors = _state_dict(path, value)
    sizes = _itemsizes(value)
    data = {}
    for key in Reader(file).load():
        count = int.from_bytes(file.read(8), 'little')
        data[key] = file.read(count * sizes[key])
    return {name: _view(path, name, tensor, data) for name, tensor in tensors.items()}


def _itemsizes(value: Any) -> dict[str, int]:
    """Bytes per element of every storage in a structure, also outside the state dict."""
    if isinstance(value, Tensor):
        return {value.storage.key: DTYPES[value.storage.kind].itemsize}
    inner = value.values() if isinstance(value, Mapping) else value
    found = {}
    if isinstance(value, Mapping | list | tuple):
        for one in inner:
            found |= _itemsizes(one)
    return found


def _state_dict(path: Path, value: Any) -> dict[str, Tensor]:
    candidates = [value]
    if isinstance(value, Mapping):
        candidates = [value.get(nest) for nest in NESTS if nest in value] + candidates
    for one in candidates:
        if isinstance(one, Mapping):
            tensors = {str(name): t for name, t in one.items() if isinstance(t, Tensor)}
            if tensors:
                return tensors
    raise ValueError(f'{path}: has no state dict, neither itself nor under {", ".join(NESTS)}')


def _view(path: Path, name: str, tensor: Tensor, data: Mapping[str, bytes]) -> np.ndarray:
    """The array of a tensor; NumPy checks that the view lies inside its storage."""
    dtype = DTYPES[tensor.storage.kind]
    bytes_ = [stride * dtype.itemsize for stride in tensor.strides]
    try:
        return np.ndarray(
            tensor.shape,
            dtype,
            data[tensor.storage.key],
            offset=tensor.offset * dtype.itemsize,
            strides=bytes_,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f'{path}: tensor {name!r} reaches outside its data ({error})') from None
