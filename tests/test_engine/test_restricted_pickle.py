"""Pickles of arrays are read; whatever else a pickle holds is refused before anything of it is made or called."""
import collections
import os
import pickle
import pickletools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mmdet.engine.restricted_pickle import read_array_pickle
from mmdet.errors import CheckpointError


def written(path, data):
    path.write_bytes(data)
    return path


def refusal(path):
    with pytest.raises(CheckpointError) as error:
        read_array_pickle(path)
    message = str(error.value)
    assert '\n' not in message and message.startswith(f'{path}: ')
    return message.removeprefix(f'{path}: ')


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


numbers = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4).flatmap(
    lambda shape: arrays.arrays(
        st.sampled_from(['<f4', '>f8', '<i8', '|u1', '|b1', '<f2', '<c8', '<U3', '|S2']), shape
    )
)


@given(array=numbers, fortran=st.booleans(), protocol=st.integers(0, 5))
def test_arrays_come_back(tmp_path_factory, array, fortran, protocol):
    array = np.asfortranarray(array) if fortran else array
    path = tmp_path_factory.getbasetemp() / 'arrays.pkl'
    nested = dict(model=collections.OrderedDict(a=array, b=[array, (1, 'x', None, 2.5, b'\xff')]), __author__='them')
    path.write_bytes(pickle.dumps(nested, protocol))
    found = read_array_pickle(path)
    assert found.keys() == {'model', '__author__'} and found['model']['b'][1] == (1, 'x', None, 2.5, b'\xff')
    for copy in (found['model']['a'], found['model']['b'][0]):
        assert copy.dtype == array.dtype and copy.shape == array.shape and copy.flags.writeable
        assert copy.tobytes() == array.tobytes()


def test_scalars_come_back(tmp_path):
    path = written(tmp_path / 'a.pkl', pickle.dumps([np.float32(1.5), np.int64(-3), {1, 2}], 2))
    found = read_array_pickle(path)
    assert found == [1.5, -3, {1, 2}] and isinstance(found[0], np.float32) and isinstance(found[1], np.int64)


def test_arrays_of_python_2(tmp_path):
    """Their bytes are strings there, as in detectron2's model zoo: they come back by latin1."""
    array = np.array([[1.5, -2], [3e9, 0.1]], np.float32)
    data = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    data += b"(I1\n(I2\nI2\ntcnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'"
    data += ''.join(f'\\x{byte:02x}' for byte in array.tobytes()).encode() + b"'\ntb."
    assert np.array_equal(read_array_pickle(written(tmp_path / 'a.pkl', data)), array)


@pytest.mark.parametrize('protocol', range(6))
def test_a_program_is_refused_and_not_run(tmp_path, protocol):
    mark = tmp_path / 'run'
    program = Call(os.system, f'touch {mark}')
    for number, data in enumerate([program, dict(model=dict(a=[np.zeros(2), (program,)])), {frozenset([1]): program}]):
        path = written(tmp_path / f'{number}.pkl', pickle.dumps(data, protocol))
        assert refusal(path).startswith(f'holds `{os.name}.system`, which is not data and could run a program')
    assert not mark.exists()
    pickle.loads(pickle.dumps(program, protocol))
    assert mark.exists()


@pytest.mark.parametrize(
    'call',
    [
        Call(eval, '1'),
        Call(bytearray, 10**15),
        Call(getattr, 'text', 'format'),
        Call(np.load, 'file'),
        Call(np.fromfile, 'file'),
        Call(__import__, 'os'),
        Call(collections.namedtuple, 'a', 'b'),
        Call(np.memmap, 'file'),
    ],
)
def test_functions_are_refused(tmp_path, call):
    data = pickle.dumps([call])
    assert 'which is not data and could run a program when read' in refusal(written(tmp_path / 'a.pkl', data))


@pytest.mark.parametrize(
    'array', [np.array([{}, 1], object), np.zeros(2, [('a', 'f4')]), np.zeros(1, 'M8[s]'), np.zeros(2, 'V3')]
)
@pytest.mark.parametrize('protocol', [2, 5])
def test_arrays_of_other_things_than_numbers_are_refused(tmp_path, array, protocol):
    message = refusal(written(tmp_path / 'a.pkl', pickle.dumps(dict(a=array), protocol)))
    assert 'not of numbers or strings' in message or 'not made of bytes' in message


def test_states_that_lie_are_refused(tmp_path):
    """numpy would read beyond the bytes, or make what is not an array; it is not asked."""
    honest = pickle.dumps(np.arange(4, dtype=np.int64), 2)
    assert b'K\x04\x85' in honest  # the shape (4,)
    longer = written(tmp_path / 'a.pkl', honest.replace(b'K\x04\x85', b'K\xff\x85'))
    assert 'an array of shape (255,) and type int64 in 32 bytes' in refusal(longer)
    opcodes = ''.join(opcode.name for opcode, *_ in pickletools.genops(honest))
    assert 'BUILD' in opcodes
    other = written(tmp_path / 'b.pkl', honest.replace(b'cnumpy\nndarray\n', b'ccollections\nOrderedDict\n'))
    assert 'an array of a class that is not `numpy.ndarray`' in refusal(other)


def test_files_that_are_none(tmp_path):
    assert refusal(tmp_path / 'none.pkl') == 'no such file'
    assert 'is no pickle, or is damaged' in refusal(written(tmp_path / 'a.pkl', b'PK\x03\x04 this is a zip'))
    whole = pickle.dumps(dict(a=np.zeros(100)), 2)
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        assert 'damaged' in refusal(written(tmp_path / 'a.pkl', whole[:length]))
    deep = b'(' * 50_000 + b'l' * 50_000 + b'.'
    assert 'nested too deeply' in refusal(written(tmp_path / 'a.pkl', deep))
    itself = []
    itself.append(itself)
    assert 'nested too deeply' in refusal(written(tmp_path / 'a.pkl', pickle.dumps(itself)))
    assert 'outside of the file' in refusal(written(tmp_path / 'a.pkl', b'Pwhere\n.'))
