"""Keeping the index of a large annotation file beside it, memory-mapped by all who use it."""
import dataclasses
import fcntl
import hashlib
import json
import logging
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from mmengine.logging import print_log

from mmdet.errors import AnnotationError
from mmdet.utils.files import renamed_when_whole

from .annotation_index import AnnotationIndex, Strings
from .annotation_reader import index_annotations

_FORMAT = 2
_MAGIC = b'mmdet annotation index\n'
_ALIGNMENT = 64
_WORTH_KEEPING = 16 << 20
_SAMPLES, _SAMPLE_BYTES = 64, 4096


def load_annotation_index(path: str | Path) -> AnnotationIndex:
    """The index of an annotation file.

    That of a large file (16 MB and more) is kept beside it as `<file>.index` when the file is read for the first time,
    and from then on memory-mapped, so that all processes of a machine share it. It is made anew where the annotation
    file has changed, in size, time or content (of which samples are compared). Where the directory cannot be written,
    the index stays in memory.

    Raises:
        AnnotationError: the annotation file cannot be used; see `index_annotations`.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
    except OSError:
        raise AnnotationError(f'{path}: no such annotation file; check data_root and ann_file') from None
    if size < _WORTH_KEEPING:
        return index_annotations(path)
    with _alone_with(path):
        key = _fingerprint(path)
        kept = path.with_name(path.name + '.index')
        index = _open(kept, key)
        if index is None:
            index = index_annotations(path)
            try:
                _save(index, kept, key)
            except OSError as error:
                print_log(
                    f'{kept}: cannot be written ({error.strerror or error}); {path.name} will be read anew next time',
                    logger='current',
                    level=logging.WARNING,
                )
            else:
                index = _open(kept, key)
    return index


class _MappedIndex(AnnotationIndex):
    """An index in a memory-mapped file; a process it is sent to maps the same file instead of copying it."""

    def __reduce__(self):
        return _reopen, self.source

    @classmethod
    def on(cls, fields: dict, kept: Path, key: str) -> '_MappedIndex':
        """With the given fields, which lie in the file `kept`."""
        index = cls(**fields)
        object.__setattr__(index, 'source', (kept, key))
        return index


def _reopen(kept: Path, key: str) -> AnnotationIndex:
    index = _open(kept, key)
    if index is None:
        raise AnnotationError(f'{kept}: changed while it was in use; start again')
    return index


def _fingerprint(path: Path) -> str:
    """What changes when the file does: size, time of change, and a hash of samples of the content."""
    status = path.stat()
    digest = hashlib.sha256()
    with path.open('rb') as file:
        for offset in np.linspace(0, max(status.st_size - _SAMPLE_BYTES, 0), _SAMPLES).astype(int):
            file.seek(offset)
            digest.update(file.read(_SAMPLE_BYTES))
    return f'{_FORMAT} {status.st_size} {status.st_mtime_ns} {digest.hexdigest()}'


@contextmanager
def _alone_with(path: Path) -> Iterator[None]:
    """Let one process at a time pass, so that the first makes the index and the others find it."""
    with path.open('rb') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            # Some network file systems have no locks; then each process makes the index, and the last one's stays.
            pass
        yield


def _save(index: AnnotationIndex, kept: Path, key: str) -> None:
    arrays = _arrays(index)
    layout, offset = {}, 0
    for name, values in arrays.items():
        layout[name] = (values.dtype.str, values.shape, offset)
        offset += -(-values.nbytes // _ALIGNMENT) * _ALIGNMENT
    header = json.dumps(dict(key=key, warning=index.warning, layout=layout, bytes=offset)).encode() + b'\n'
    data_start = -(-(len(_MAGIC) + len(header)) // _ALIGNMENT) * _ALIGNMENT
    with renamed_when_whole(kept) as file:
        file.write((_MAGIC + header).ljust(data_start, b'\0'))
        for values in arrays.values():
            file.write(np.ascontiguousarray(values).data)
            file.write(bytes(-values.nbytes % _ALIGNMENT))


def _open(kept: Path, key: str) -> AnnotationIndex | None:
    """Map a kept index; None where there is none, or one of another annotation file, or a damaged one."""
    try:
        with kept.open('rb') as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                return None
            header = json.loads(file.readline())
            data_start = -(-file.tell() // _ALIGNMENT) * _ALIGNMENT
            if header['key'] != key or kept.stat().st_size != data_start + header['bytes']:
                return None
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError, KeyError):
        return None
    arrays = {
        name: np.frombuffer(data, dtype, int(np.prod(shape)), data_start + offset).reshape(shape)
        for name, (dtype, shape, offset) in header['layout'].items()
    }
    fields = dict(warning=header['warning'])
    for field in dataclasses.fields(AnnotationIndex)[1:]:
        name = field.name
        packed = f'{name}.text' in arrays
        fields[name] = Strings(arrays[f'{name}.text'], arrays[f'{name}.start']) if packed else arrays[name]
    return _MappedIndex.on(fields, kept, key)


def _arrays(index: AnnotationIndex) -> dict[str, np.ndarray]:
    """All arrays of an index by name, those of strings as `name.text` and `name.start`."""
    arrays = {}
    for field in dataclasses.fields(index):
        value = getattr(index, field.name)
        if isinstance(value, Strings):
            arrays |= {f'{field.name}.text': value.text, f'{field.name}.start': value.start}
        elif isinstance(value, np.ndarray):
            arrays[field.name] = value
    return arrays
