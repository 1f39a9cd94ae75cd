"""PyTorch's checkpoints, read without PyTorch and without running what is in them.

Most are made here by hand, of the opcodes that PyTorch writes.
"""

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from tljax.nets.pretrained import files, torchfile


class Global:
    """Pickled as a reference to a name in a module that need not exist here."""

    def __init__(self, module, name):
        self.text = f'{module} {name}'


class Pickler(pickle._Pickler):
    """Writes tensors as PyTorch does: storages by persistent id, and a call that rebuilds."""

    def persistent_id(self, value):
        return value.pid if isinstance(value, FakeStorage) else None

    def save(self, value, save_persistent_id=True):
        if isinstance(value, Global):
            module, name = value.text.split()
            self.write(b'c' + f'{module}\n{name}\n'.encode())
        elif isinstance(value, Call):
            self.save(value.function)
            self.save(value.arguments)
            self.write(b'R')
        else:
            super().save(value, save_persistent_id)


class Call:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments


class FakeStorage:
    def __init__(self, key, kind, count):
        self.pid = ('storage', Global('torch', kind), key, 'cpu', count)


def tensor(key, array, kind='FloatStorage', shape=None, strides=None, offset=0):
    shape = array.shape if shape is None else shape
    strides = [s // array.itemsize for s in array.strides] if strides is None else strides
    rebuild = Global('torch._utils', '_rebuild_tensor_v2')
    storage = FakeStorage(key, kind, array.size)
    return Call(rebuild, storage, offset, tuple(shape), tuple(strides), False, OrderedDict())


def pickled(value, protocol=2):
    buffer = io.BytesIO()
    Pickler(buffer, protocol).dump(value)
    return buffer.getvalue()


def zipped(path, value, data=()):
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', pickled(value))
        for key, array in dict(data).items():
            archive.writestr(f'archive/data/{key}', array.tobytes())
    return path


ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_checkpoints_of_both_formats(tmp_path):
    half = np.ones(4, np.float16)
    value = {
        'epoch': 3,
        'state_dict': {'a': tensor('0', ARRAY), 'b': tensor('1', half, 'HalfStorage')},
        'optimizer': {'state': [tensor('2', ARRAY)]},
    }
    path = zipped(tmp_path / 'new.pth', value, {'0': ARRAY, '1': half, '2': ARRAY})
    old = pickled(torchfile.MAGIC) + pickled(1001) + pickled({'little_endian': True})
    for storage in value['state_dict'].values():
        storage.arguments[0].pid += (None,)
    value['optimizer']['state'][0].arguments[0].pid += (None,)
    old += pickled(value) + pickled(['0', '1', '2'])
    for array in (ARRAY, half, ARRAY):
        old += struct.pack('<q', array.size) + array.tobytes()
    (tmp_path / 'old.th').write_bytes(old)
    for one in (path, tmp_path / 'old.th'):
        read = files.read(one)
        assert read.keys() == {'a', 'b'}
        np.testing.assert_array_equal(read['a'], ARRAY)
        assert read['b'].dtype == np.float16


def test_views_stay_inside_their_storage(tmp_path):
    transposed = tensor('0', ARRAY, shape=(3, 2), strides=(1, 3))
    read = files.read(zipped(tmp_path / 'w.pth', {'a': transposed}, {'0': ARRAY}))
    np.testing.assert_array_equal(read['a'], ARRAY.T)
    for outside in (
        tensor('0', ARRAY, shape=(7,), strides=(1,)),
        tensor('0', ARRAY, offset=1),
        tensor('0', ARRAY, offset=-1, shape=(2,), strides=(1,)),
        tensor('0', ARRAY, shape=(2,), strides=(-4,)),
        tensor('9', ARRAY),
    ):
        path = zipped(tmp_path / 'w.pth', {'a': outside}, {'0': ARRAY})
        with pytest.raises(ValueError, match=r'outside its data|damaged .KeyError'):
            files.read(path)


EVIL = {
    'os.system': ('os', 'system', 'touch {}'),
    'eval': ('builtins', 'eval', "open('{}', 'w')"),
    'getattr': ('builtins', 'getattr', '{}', 'x'),
    'import': ('importlib', 'import_module', '{}'),
    'codecs': ('_codecs', 'encode', '{}'),
    'load': ('torch', 'load', '{}'),
    'storage': ('torch.storage', '_load_from_bytes', b'{}'),
    'dotted': ('collections', 'OrderedDict.__init__.__globals__', '{}'),
}


@pytest.mark.parametrize('kind', EVIL)
@pytest.mark.parametrize('legacy', [False, True])
def test_a_checkpoint_that_runs_code_is_refused(kind, legacy, tmp_path):
    mark = tmp_path / 'mark'
    module, name, *arguments = EVIL[kind]
    arguments = [a.format(mark) if isinstance(a, str) else a for a in arguments]
    evil = {'a': tensor('0', ARRAY), 'b': Call(Global(module, name), *arguments)}
    path = tmp_path / 'evil.pth'
    if legacy:
        # At once, as the very first thing that is read.
        path.write_bytes(pickled(evil['b']))
    else:
        zipped(path, evil, {'0': ARRAY})
    with pytest.raises(
        ValueError, match=rf'evil.pth: asks for {module}.{name}.*could run anything'
    ):
        files.read(path)
    assert not mark.exists()


def test_a_pickle_by_reduce_is_refused_too(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f'touch {tmp_path / "mark"}',)

    with zipfile.ZipFile(tmp_path / 'evil.pth', 'w') as archive:
        archive.writestr('archive/data.pkl', pickle.dumps({'a': Evil()}))
    with pytest.raises(ValueError, match='could run anything'):
        files.read(tmp_path / 'evil.pth')
    assert not (tmp_path / 'mark').exists()


def test_what_a_pickle_is_given_can_not_be_changed_for_good(tmp_path):
    # BUILD sets attributes of whatever lies on the stack.
    setter = (
        b'ctorch._utils\n_rebuild_parameter\n(N}X\x08\x00\x00\x00__name__X\x01\x00\x00\x00xstb.'
    )
    with zipfile.ZipFile(tmp_path / 'w.pth', 'w') as archive:
        archive.writestr('archive/data.pkl', b'\x80\x02' + setter)
    with pytest.raises(ValueError):
        files.read(tmp_path / 'w.pth')
    path = zipped(tmp_path / 'w.pth', {'a': tensor('0', ARRAY)}, {'0': ARRAY})
    np.testing.assert_array_equal(files.read(path)['a'], ARRAY)


@pytest.mark.slow
def test_checkpoints_that_torch_wrote(tmp_path):
    torch = pytest.importorskip('torch')
    state = {
        'w': torch.randn(3, 4).T,
        'half': torch.ones(2, dtype=torch.bfloat16),
        'parameter': torch.nn.Parameter(torch.randn(5)),
        'scalar': torch.tensor(2.0),
        'step': torch.tensor(3),
    }
    for legacy in (False, True):
        path = tmp_path / 'w.pth'
        whole = {'model': OrderedDict(state), 'epoch': 1, 'lr': 0.1, 'names': ['a']}
        torch.save(whole, path, _use_new_zipfile_serialization=not legacy)
        read = files.read(path)
        assert read.keys() == state.keys()
        for name, array in read.items():
            np.testing.assert_array_equal(array.astype(np.float64), state[name].detach().double())
