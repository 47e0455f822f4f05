"""Files that are written whole or not at all."""
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mmdet.errors import UserError


@contextmanager
def written_whole(path: str | Path, error: type[UserError] = UserError) -> Iterator[BinaryIO]:
    """A binary file for writing that appears at `path` only once it is complete and on the disk.

    Raises:
        UserError: of the class `error`, where the disk is full or the folder cannot be written; `path` is as it was.
    """
    try:
        with renamed_when_whole(path) as file:
            yield file
    except OSError as failure:
        raise error(
            f'{path}: could not be written ({failure.strerror or failure}); free some space or choose another folder, '
            f'what was there before is unharmed'
        ) from failure


@contextmanager
def renamed_when_whole(path: str | Path) -> Iterator[BinaryIO]:
    """As `written_whole`, for those who can do without the file: raises OSError where it cannot be written."""
    path = Path(path)
    # A process id is another process's too, on another host or in another container that shares the folder.
    temporary = path.with_name(f'.{path.name}.{secrets.token_hex(8)}.tmp')
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, 'xb') as file:
            with _own_errors(_WatchedFile(file)) as watched:
                yield watched
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()


class _WatchedFile:
    """A binary file for writing that remembers the first OSError."""

    def __init__(self, file: BinaryIO):
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


@contextmanager
def _own_errors(file: _WatchedFile) -> Iterator[_WatchedFile]:
    try:
        yield file
    except RuntimeError as error:
        # torch's zip writer reports a failing disk in words of its own.
        raise file.failure or error from error
