"""Annotation files as they lie: .json, .json.gz or .json.zip, read a few megabytes at a time."""
import gzip
import io
import json
import re
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import msgspec

from mmdet.errors import AnnotationError
from mmdet.utils.files import written_whole

_CHUNK = 1 << 20  # characters
_decode = json.JSONDecoder().raw_decode
_skip_space = re.compile(r'[ \t\n\r]*').match


def read_json(path: str | Path) -> dict:
    """Read a JSON object from a .json, .json.gz or .json.zip file (a zip archive with one JSON file in it).

    Raises:
        AnnotationError: the file is missing, damaged, cut short, or not a JSON object.
    """
    return dict(read_json_items(path))


def read_json_items(path: str | Path, streamed: Collection[str] = ()) -> Iterator[tuple[str, Any]]:
    """The items of the JSON object in a file, in the file's order.

    The text of the file is never in memory as a whole, unless it is one long value.

    Args:
        path: of a .json, .json.gz or .json.zip file.
        streamed: keys whose value, if it is a list, is given as an iterator over its elements, which are decoded a
            few at a time: those of a large file need not be in memory together. Use it up before taking the next item.

    Raises:
        AnnotationError: as `read_json`; where the file is cut short, when the cut is reached.
    """
    with _in_words_of_the_file(path), _opened(Path(path)) as file:
        yield from _Scanner(file, path).items(streamed)


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """The text of a file, unpacked as it is read."""
    if path.suffix == '.zip':
        with zipfile.ZipFile(path) as archive, archive.open(_only_json_in(archive, path)) as member:
            yield io.TextIOWrapper(member, encoding='utf-8')
    else:
        with (gzip.open if path.suffix == '.gz' else open)(path, 'rt', encoding='utf-8') as file:
            yield file


def _only_json_in(archive: zipfile.ZipFile, path: Path) -> str:
    # macOS adds a hidden twin of every file.
    names = [name for name in archive.namelist() if name.endswith('.json') and not name.startswith('__MACOSX')]
    if len(names) != 1:
        raise AnnotationError(f'{path}: holds {len(names)} JSON files; exactly one is expected')
    return names[0]


@contextmanager
def _in_words_of_the_file(path: str | Path) -> Iterator[None]:
    """What can go wrong in reading, as errors of the file."""
    try:
        yield
    except FileNotFoundError:
        raise AnnotationError(f'{path}: no such annotation file; check data_root and ann_file') from None
    except UnicodeDecodeError as error:
        raise AnnotationError(f'{path}: not UTF-8 text ({error})') from None
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise AnnotationError(f'{path}: cannot be unpacked ({error}); the file is cut short or damaged') from None
    except OSError as error:
        raise AnnotationError(f'{path}: cannot be read ({error.strerror or error})') from None
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f'{path}: not whole as JSON ({error}); the file is cut short or damaged') from None


def check_name(path: str | Path) -> None:
    """Raises AnnotationError where `write_json` writes no file of this name."""
    if not str(path).endswith(('.json', '.json.gz')):
        raise AnnotationError(f'{path}: cannot be written under this name; take one that ends in .json or .json.gz')


def write_json(path: str | Path, content: dict) -> None:
    """Write a .json or .json.gz file, whole or not at all.

    Raises:
        AnnotationError: it cannot be written, or has a name with another ending.
    """
    check_name(path)
    data = json.dumps(content).encode()
    with written_whole(path, AnnotationError) as file:
        file.write(gzip.compress(data, mtime=0) if Path(path).suffix == '.gz' else data)


class _Scanner:
    """Decodes the JSON object in a file bit by bit.

    Attributes:
        text: that part of the file's text which is at hand.
        position: where in it the undecoded text begins.
    """

    def __init__(self, file: TextIO, path: str | Path):
        self.file = file
        self.path = path
        self.text = ''
        self.position = 0
        self.characters_before = 0
        self.one_by_one_until = 0

    def items(self, streamed: Collection[str]) -> Iterator[tuple[str, Any]]:
        """The items of an object, the lists at the keys `streamed` as iterators."""
        if not self.comes('{') and self.position < len(self.text):
            raise AnnotationError(f'{self.path}: not a JSON object; it begins with {self.text[self.position]!r}')
        self.take('{')
        more = not self.comes('}')
        while more:
            key = self.value()
            self.take(':')
            if not self.comes('['):
                yield key, self.value()
            elif key in streamed:
                yield key, self.elements()
            else:
                yield key, list(self.elements())
            more = not self.comes('}')
            if more:
                self.take(',')

    def elements(self) -> Iterator[Any]:
        """The elements of a list."""
        with _in_words_of_the_file(self.path):
            self.take('[')
            more = not self.comes(']')
            while more:
                yield from self.next_elements()
                more = self.comes(',')
                if more:
                    self.take(',')
            self.take(']')

    def next_elements(self) -> list[Any]:
        """The next one or more elements of a list."""
        end = self.text.rfind('},', self.position) + 1
        if not end and self.read_on():
            end = self.text.rfind('},', self.position) + 1
        if end > self.one_by_one_until:
            try:
                elements = msgspec.json.decode(f'[{self.text[self.position : end]}]')
            except (msgspec.DecodeError, RecursionError):
                # The brace belongs to something inside an element, or this is JSON only to Python's json (NaN).
                self.one_by_one_until = end
            else:
                self.position = end
                return elements
        return [self.value()]

    def value(self) -> Any:
        """The value that comes next."""
        self.skip_space()
        while True:
            try:
                value, end = _decode(self.text, self.position)
            except json.JSONDecodeError as error:
                if not self.read_on():
                    raise self.complaint(error.msg, error.pos) from None
                continue
            # A number may go on behind the text at hand, which perhaps ends in its point or its `e-`.
            if end + len('e-') < len(self.text) or not self.read_on():
                self.position = end
                return value

    def comes(self, character: str) -> bool:
        """Whether `character` comes next."""
        self.skip_space()
        return self.text.startswith(character, self.position)

    def take(self, character: str) -> None:
        """Step over `character`, which must come next."""
        if not self.comes(character):
            raise self.complaint(f'Expecting {character!r}', self.position)
        self.position += 1

    def skip_space(self) -> None:
        """Step to the next character that is not white space, or to the end of the file."""
        while True:
            self.position = _skip_space(self.text, self.position).end()
            if self.position < len(self.text) or not self.read_on():
                return

    def read_on(self) -> bool:
        """Drops what is decoded and reads as much as is left, so that a long value costs linear time.

        Returns:
            Whether there was more text.
        """
        pending = self.text[self.position :]
        chunk = self.file.read(max(_CHUNK, len(pending)))
        if chunk:
            self.characters_before += self.position
            self.text, self.position, self.one_by_one_until = pending + chunk, 0, 0
        return bool(chunk)

    def complaint(self, message: str, position: int) -> ValueError:
        """What is wrong with the text at `position`, which counts from the beginning of the text at hand."""
        return ValueError(f'{message} at character {self.characters_before + position}')
