"""Annotation files as they lie: .json, .json.gz or .json.zip."""
import gzip
import json
import os
import re
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmdet.errors import AnnotationError

_decode = json.JSONDecoder().raw_decode
_skip_space = re.compile(r'[ \t\n\r]*').match


def read_json(path: str | Path) -> dict:
    """Read a JSON object from a .json, .json.gz or .json.zip file (a zip archive with one JSON file in it).

    Raises:
        AnnotationError: the file is missing, damaged, cut short, or not a JSON object.
    """
    return dict(read_json_items(path))


def read_json_items(path: str | Path, streamed: Collection[str] = ()) -> Iterator[tuple[str, object]]:
    """The items of the JSON object in a file, in the file's order.

    Args:
        path: of a .json, .json.gz or .json.zip file.
        streamed: keys whose value, if it is a list, is given as an iterator over its elements, which are decoded one
            at a time: those of a large file need not be in memory together. Use it up before taking the next item.

    Raises:
        AnnotationError: as `read_json`; where the file is cut short, when the cut is reached.
    """
    return _Scanner(read_text(path), path).items(streamed)


def read_text(path: str | Path) -> str:
    """The text of a .json, .json.gz or .json.zip file, unpacked; raises as `read_json` does."""
    path = Path(path)
    try:
        if path.suffix == '.gz':
            data = gzip.decompress(path.read_bytes())
        elif path.suffix == '.zip':
            data = _only_json_in(path)
        else:
            data = path.read_bytes()
        return data.decode()
    except FileNotFoundError:
        raise AnnotationError(f'{path}: no such annotation file; check data_root and ann_file') from None
    except UnicodeDecodeError as error:
        raise AnnotationError(f'{path}: not UTF-8 text ({error})') from None
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise AnnotationError(f'{path}: cannot be unpacked ({error}); the file is cut short or damaged') from None
    except OSError as error:
        raise AnnotationError(f'{path}: cannot be read ({error.strerror or error})') from None


def check_name(path: str | Path) -> None:
    """Raises AnnotationError where `write_json` writes no file of this name."""
    if not str(path).endswith(('.json', '.json.gz')):
        raise AnnotationError(f'{path}: cannot be written under this name; take one that ends in .json or .json.gz')


def write_json(path: str | Path, content: dict) -> None:
    """Write a .json or .json.gz file under a temporary name, then rename it: the file is whole or absent.

    Raises:
        AnnotationError: it cannot be written, or has a name with another ending.
    """
    check_name(path)
    path = Path(path)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    data = json.dumps(content).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(gzip.compress(data, mtime=0) if path.suffix == '.gz' else data)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise AnnotationError(f'{path}: cannot be written ({error.strerror or error})') from None


def _only_json_in(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        # macOS adds a hidden twin of every file.
        names = [name for name in archive.namelist() if name.endswith('.json') and not name.startswith('__MACOSX')]
        if len(names) != 1:
            raise AnnotationError(f'{path}: holds {len(names)} JSON files; exactly one is expected')
        return archive.read(names[0])


class _Scanner:
    """Decodes the JSON object in a file bit by bit; `position` is where the undecoded text begins."""

    def __init__(self, text: str, path: str | Path):
        self.text = text
        self.path = path
        self.position = 0

    def items(self, streamed: Collection[str]) -> Iterator[tuple[str, object]]:
        """The items of an object, the lists at the keys `streamed` as iterators."""
        with self._in_words_of_the_file():
            if not self.comes('{') and self.position < len(self.text):
                raise AnnotationError(f'{self.path}: not a JSON object; it begins with {self.text[self.position]!r}')
            self.take('{')
            more = not self.comes('}')
            while more:
                key = self.value()
                self.take(':')
                yield key, self.elements() if key in streamed and self.comes('[') else self.value()
                more = not self.comes('}')
                if more:
                    self.take(',')

    def elements(self) -> Iterator:
        """The elements of a list."""
        with self._in_words_of_the_file():
            self.take('[')
            more = not self.comes(']')
            text = self.text
            while more:
                element, position = _decode(text, self.position)
                yield element
                position = _skip_space(text, position).end()
                more = text.startswith(',', position)
                self.position = _skip_space(text, position + 1).end() if more else position
            self.take(']')

    def value(self):
        """The value that comes next."""
        value, self.position = _decode(self.text, _skip_space(self.text, self.position).end())
        return value

    def comes(self, character: str) -> bool:
        """Whether `character` comes next."""
        self.position = _skip_space(self.text, self.position).end()
        return self.text.startswith(character, self.position)

    def take(self, character: str) -> None:
        """Step over `character`, which must come next."""
        if not self.comes(character):
            raise json.JSONDecodeError(f'Expecting {character!r}', self.text, self.position)
        self.position += 1

    @contextmanager
    def _in_words_of_the_file(self) -> Iterator[None]:
        """Errors of JSON as errors of the file."""
        try:
            yield
        except json.JSONDecodeError as error:
            raise AnnotationError(
                f'{self.path}: not whole as JSON ({error}); the file is cut short or damaged'
            ) from None
