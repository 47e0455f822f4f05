"""Reading a COCO-format annotation file record by record, so that its size on disk never stands in memory."""
import gzip
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from mmdet.errors import AnnotationError

CHUNK = 1 << 20  # characters
WHITESPACE = re.compile(r'[ \t\n\r]*')


def stream_annotation_file(path: str | Path) -> Iterator[tuple[str, Any]]:
    """The records of a `.json`, `.json.gz` or `.json.zip` annotation file, in the order they lie there.

    Yields:
        (section, record): `('images', {...})`, `('annotations', {...})`, ...; a top-level value that
        is not a list comes as one record.

    Raises:
        AnnotationError: the file is missing, damaged, cut short or not a JSON object.
    """
    try:
        with _open_text(Path(path)) as file:
            yield from _records(_JSONReader(file))
    except FileNotFoundError:
        raise AnnotationError(f'{path}: no such annotation file') from None
    except (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile) as error:
        raise AnnotationError(f'{path}: not a whole JSON annotation file ({error}); fetch or write it again') from None


def _open_text(path: Path) -> TextIO:
    if path.suffix == '.gz':
        return gzip.open(path, 'rt', encoding='utf-8')
    if path.suffix == '.zip':
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith('.json') and '__MACOSX' not in name]
            if len(members) != 1:
                raise ValueError(f'the archive holds {len(members)} .json files instead of one')
            return io.TextIOWrapper(archive.open(members[0]), encoding='utf-8')
    return open(path, encoding='utf-8')


def _records(reader: '_JSONReader') -> Iterator[tuple[str, Any]]:
    for _ in reader.items('{', '}'):
        section = reader.value()
        reader.expect(':')
        if reader.peek() != '[':
            yield section, reader.value()
            continue
        for _ in reader.items('[', ']'):
            yield section, reader.value()


class _JSONReader:
    """Walks JSON text that is read in chunks; only values asked for are decoded, one at a time."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text = ''
        self._position = 0
        self._decode = json.JSONDecoder().raw_decode

    def items(self, opening: str, closing: str) -> Iterator[None]:
        """Yields once before every item of an object or a list; the caller consumes the item."""
        self.expect(opening)
        if self.peek() != closing:
            yield
            while self.peek() == ',':
                self._position += 1
                yield
        self.expect(closing)

    def peek(self) -> str:
        """The next character that is not white space."""
        while True:
            self._position = WHITESPACE.match(self._text, self._position).end()
            if self._position < len(self._text):
                return self._text[self._position]
            if not self._read_on():
                raise ValueError('cut short')

    def expect(self, character: str) -> None:
        found = self.peek()
        if found != character:
            raise ValueError(f'{found!r} where {character!r} belongs')
        self._position += 1

    def value(self) -> Any:
        self.peek()
        while True:
            try:
                value, end = self._decode(self._text, self._position)
            except json.JSONDecodeError as error:
                if self._read_on():
                    continue
                raise ValueError('cut short or malformed: ' + error.msg) from None
            # A number that touches the end of the chunk may go on in the next one.
            if end == len(self._text) and self._read_on():
                continue
            self._position = min(end, len(self._text))
            return value

    def _read_on(self) -> bool:
        """Drops the text consumed and reads at least as much again, so that one long value costs linear time."""
        pending = self._text[self._position :]
        chunk = self._file.read(max(CHUNK, len(pending)))
        if chunk:
            self._text = pending + chunk
            self._position = 0
        return bool(chunk)
