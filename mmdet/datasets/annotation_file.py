"""Reading annotation files as they lie: .json, .json.gz or .json.zip."""
import gzip
import json
import zipfile
import zlib
from pathlib import Path

from mmdet.errors import AnnotationError


def read_json(path: str | Path) -> dict:
    """Read a JSON object from a .json, .json.gz or .json.zip file (a zip archive with one JSON file in it).

    Raises:
        AnnotationError: the file is missing, damaged, cut short, or not a JSON object.
    """
    data = read_bytes(path)
    try:
        content = json.loads(data)
    except ValueError as error:
        raise AnnotationError(f'{path}: not whole as JSON ({error}); the file is cut short or damaged') from None
    if not isinstance(content, dict):
        raise AnnotationError(f'{path}: holds a JSON {type(content).__name__}; a COCO or LVIS file is an object')
    return content


def read_bytes(path: str | Path) -> bytes:
    """The JSON text of a .json, .json.gz or .json.zip file, unpacked; raises as `read_json` does."""
    path = Path(path)
    try:
        if path.suffix == '.gz':
            return gzip.decompress(path.read_bytes())
        if path.suffix == '.zip':
            return _only_json_in(path)
        return path.read_bytes()
    except FileNotFoundError:
        raise AnnotationError(f'{path}: no such annotation file; check data_root and ann_file') from None
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise AnnotationError(f'{path}: cannot be unpacked ({error}); the file is cut short or damaged') from None
    except OSError as error:
        raise AnnotationError(f'{path}: cannot be read ({error.strerror or error})') from None


def _only_json_in(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        # macOS adds a hidden twin of every file.
        names = [name for name in archive.namelist() if name.endswith('.json') and not name.startswith('__MACOSX')]
        if len(names) != 1:
            raise AnnotationError(f'{path}: holds {len(names)} JSON files; exactly one is expected')
        return archive.read(names[0])
