"""Files that are written whole or not at all."""
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmdet.errors import UserError


def write_atomically(path: str | Path, write: Callable[[Any], None], error: type[UserError] = UserError) -> None:
    """Let `write(binary file)` fill a temporary file beside `path`, flush it to the disk, rename it to `path`.

    Raises:
        UserError: of the class `error`, where the disk is full or the folder cannot be written; `path` is as it was.
    """
    path = Path(path)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, 'wb') as file:
            _fill(file, write)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as failure:
        raise error(
            f'{path}: could not be written ({failure.strerror or failure}); free some space or choose another folder, '
            f'what was there before is unharmed'
        ) from failure
    finally:
        with suppress(OSError):
            temporary.unlink()


def _fill(file: Any, write: Callable[[Any], None]) -> None:
    watched = _WatchedFile(file)
    try:
        write(watched)
        file.flush()
    except RuntimeError as error:
        # torch's zip writer reports a failing disk in words of its own.
        raise watched.failure or error from error


class _WatchedFile:
    """A binary file for writing that remembers the first OSError."""

    def __init__(self, file: Any):
        self._file = file
        self.failure: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.failure = self.failure or error
            raise

    def flush(self) -> None:
        self._file.flush()
