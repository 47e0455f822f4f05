"""Pickles from strangers: arrays and plain containers are read, anything else is refused before it is made.

Unpickling calls what the file names, so a file can run any program. Here a file may name nothing but what numpy's
arrays and plain containers are pickled with, and even for these it gets stand-ins of ours: numpy itself never sees a
state that a stranger has written.
"""
import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mmdet.errors import CheckpointError

NUMPY_MODULES = (
    'numpy',
    *(f'numpy.{core}.{module}' for core in ('core', '_core') for module in ('multiarray', 'numeric')),
)
NDARRAY = object()  # stands for the class where a file names it


class Refusal(pickle.UnpicklingError):
    """What a file holds that is not plain data; the message goes on a line that begins with its path."""


def read_array_pickle(path: str | Path, encoding: str = 'latin1') -> Any:
    """The data in a pickle of any protocol.

    Args:
        path: the file.
        encoding: of Python 2's strings; latin1 keeps the bytes of Python 2's arrays.

    Returns:
        dicts, lists, tuples, sets, strings, bytes, numbers, None, and numpy arrays and scalars of numbers or strings,
        nested in any way. Ordered dicts come as dicts.

    Raises:
        CheckpointError: a file that is missing, damaged, or holds anything else.
    """
    try:
        with open(path, 'rb') as file:
            return _finished(_Unpickler(file, encoding=encoding).load(), {})
    except FileNotFoundError:
        raise CheckpointError(f'{path}: no such file') from None
    except Refusal as refusal:
        raise CheckpointError(
            f'{path}: holds {refusal}; it is refused: get a file of plain arrays, or convert it where you trust it'
        ) from refusal
    except RecursionError as error:
        raise CheckpointError(f'{path}: is nested too deeply to be a file of arrays; it is refused') from error
    except Exception as error:  # a damaged file makes an unpickler raise almost anything
        raise CheckpointError(f'{path}: is no pickle, or is damaged; get it anew') from error


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """A stand-in for what a file names, new each time: a file could change what it is given."""
        if module in ('builtins', '__builtin__') and name in ('set', 'frozenset', 'complex'):
            return {'set': set, 'frozenset': frozenset, 'complex': complex}[name]
        if module in ('builtins', '__builtin__') and name == 'bytes':
            return lambda: b''  # in the older protocols none are spelt otherwise
        if (module, name) == ('collections', 'OrderedDict'):
            return dict
        if (module, name) == ('_codecs', 'encode'):
            return lambda text, encoding: _latin1_bytes(text, encoding)
        if module in NUMPY_MODULES:
            if name == 'ndarray':
                return NDARRAY
            make = _numpy_makers().get(name)
            if make is not None:
                return make
        raise Refusal(f'`{module}.{name}`, which is not data and could run a program when read')

    def persistent_load(self, pid: Any) -> Any:
        """No pickle of arrays refers to anything outside of it."""
        raise Refusal('a reference to something outside of the file')


class _Type:
    """A numpy type to be."""

    __slots__ = ('code', 'order')

    def __init__(self, code: str):
        self.code = code
        self.order = '='

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]

    def finished(self) -> np.dtype:
        """The type, if it is one of numbers or strings."""
        if not (isinstance(self.code, str) and re.fullmatch(r'[biufcSU]\d{1,9}', self.code)):
            raise Refusal(f'an array of type {self.code!r}, which is not of numbers or strings')
        if self.order not in ('<', '>', '=', '|'):
            raise Refusal(f'an array of byte order {self.order!r}')
        return np.dtype(self.order + self.code)


class _Array:
    """An array to be, or where `scalar` the only element of one."""

    __slots__ = ('data', 'order', 'scalar', 'shape', 'type')

    def __init__(self, shape: Any = (0,), kind: Any = None, data: Any = b'', order: str = 'C', scalar: bool = False):
        self.shape, self.type, self.data, self.order, self.scalar = shape, kind, data, order, scalar

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, self.type, fortran, self.data = state
        self.order = 'F' if fortran else 'C'

    def finished(self) -> np.ndarray | np.generic:
        """The array, if its shape and its bytes agree."""
        if not isinstance(self.type, _Type):
            raise Refusal('an array without a type')
        kind = self.type.finished()
        data = self.data.encode('latin1') if isinstance(self.data, str) else self.data
        shape = self.shape if isinstance(self.shape, tuple) else (self.shape,)
        if not isinstance(data, (bytes, bytearray)) or not all(type(side) is int and side >= 0 for side in shape):
            raise Refusal('an array that is not made of bytes')
        if math.prod(shape) * kind.itemsize != len(data):
            raise Refusal(f'an array of shape {shape} and type {kind} in {len(data)} bytes')
        array = np.frombuffer(data, kind) if kind.itemsize and data else np.zeros(math.prod(shape), kind)
        array = array.reshape(shape, order=self.order).copy()
        return array[()] if self.scalar else array


def _numpy_makers() -> dict[str, Callable]:
    """By name, what makes the stand-ins of what numpy's arrays, types and scalars are pickled with."""
    return {
        'dtype': lambda code, *_: _Type(code),
        '_reconstruct': lambda kind, shape, code: _new_array(kind),
        'scalar': lambda kind, data: _Array((), kind, data, scalar=True),
        '_frombuffer': lambda data, kind, shape, order: _Array(shape, kind, data, order),
    }


def _new_array(kind: Any) -> _Array:
    if kind is not NDARRAY:
        raise Refusal('an array of a class that is not `numpy.ndarray`')
    return _Array()


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """How pickle protocol 2 spells bytes."""
    if encoding != 'latin1':
        raise Refusal(f'text in the encoding {encoding!r}')
    return text.encode('latin1')


def _finished(value: Any, done: dict[int, Any]) -> Any:
    """Nested data with its arrays made; what occurs twice is made once."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, bytearray)):
        return value
    if id(value) in done:
        return done[id(value)][1]
    if isinstance(value, _Array):
        result = value.finished()
    elif isinstance(value, _Type):
        result = value.finished()
    elif isinstance(value, dict):
        result = {_finished(key, done): _finished(item, done) for key, item in value.items()}
    elif isinstance(value, (list, tuple, set, frozenset)):
        result = type(value)(_finished(item, done) for item in value)
    else:
        raise Refusal(f'a {type(value).__name__}, which is not data')
    done[id(value)] = (value, result)
    return result
