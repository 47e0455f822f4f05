"""Result files: in the format the official COCO and LVIS evaluators read, there whole or not at all."""
import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from mmdet.errors import UserError
from mmdet.utils.files import written_whole


class ResultsPart:
    """One process's share of a result file, image by image in a temporary file beside it.

    The temporary file goes when the part is closed or the process ends.

    Args:
        path: the result file all parts will be joined in.
    """

    def __init__(self, path: str):
        self._path = Path(path)
        self._file: Any = None

    def write(self, image_id: int, results: list[dict[str, Any]]) -> None:
        """Adds one image's results, dicts in the official format.

        Raises:
            UserError: the folder or the disk does not take them.
        """
        line = f'{image_id}\t{json.dumps(results, default=bytes.decode)[1:-1]}\n'
        with _one_line_errors(self._path):
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = NamedTemporaryFile('w', dir=self._path.parent, prefix=f'.{self._path.name}.')
            self._file.write(line)

    def flushed(self) -> str | None:
        """The temporary file's name, complete for other processes to read; None where nothing was written."""
        if self._file is None:
            return None
        with _one_line_errors(self._path):
            self._file.flush()
        return self._file.name

    def close(self) -> None:
        """Removes the temporary file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def join_parts(parts: Iterable[str], path: str) -> None:
    """Writes one result file from the parts of all processes; an image that several of them saw counts once.

    Raises:
        UserError: the folder or the disk does not take it.
    """
    joined = set()
    separator = '\n'
    with written_whole(path) as file:
        file.write(b'[')
        for part in parts:
            with open(part, encoding='utf-8') as lines:
                for line in lines:
                    image_id, results = line.rstrip('\n').split('\t')
                    if results and image_id not in joined:
                        file.write((separator + results).encode())
                        separator = ',\n'
                    joined.add(image_id)
        file.write(b'\n]\n')


def write_per_class(per_class: Iterable[dict[str, Any]], path: str | Path) -> None:
    """Writes a metric's `per_class` as a JSON list, one line per class; an AP that is NaN becomes null.

    Raises:
        UserError: the folder or the disk does not take it; what was at `path` before is unharmed.
    """
    rows = [{key: None if _is_nan(value) else value for key, value in row.items()} for row in per_class]
    with written_whole(path) as file:
        file.write(('[\n' + ',\n'.join(json.dumps(row) for row in rows) + '\n]\n').encode())


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f'{path}: could not be written ({reason}); free space or choose another place') from error


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
