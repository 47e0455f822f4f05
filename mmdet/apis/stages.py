"""Stages of a long task: each in a folder of its own, and kept once it is finished."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import mmdet
from mmdet.errors import UserError
from mmdet.utils.files import written_whole

RECORD = 'stage.json'


class Stage:
    """One stage, its folder and, in `stage.json` there, what is known of it.

    Everything the stage depends on is hashed into its key. Finished under that key, it is not done again; interrupted
    under that key, or without what it has made, it goes on where it was; under another key it starts anew in an emptied
    folder.

    Args:
        name: for the user.
        folder: what the stage makes lies here.
        depends_on: texts, e.g. a config; the package's version is added.
        after: the stages before this one, whose keys it depends on too.
        emptied: whether `run` empties a folder from another key, or only writes over it.
        has_product: whether what the stage makes is there.

    Attributes:
        key: hexadecimal.
        is_known: whether the folder is from a start under this key.
        starts_anew: whether the folder is from another key.
        seconds: wall time the stage has taken so far, all starts together.

    Raises:
        UserError: where the folder has content that no stage has put there.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        depends_on: Sequence[str],
        after: Sequence['Stage'] = (),
        emptied: bool = True,
        has_product: Callable[[], bool] = lambda: True,
    ):
        self.name = name
        self.folder = folder
        parts = [name, mmdet.__version__, *depends_on, *(stage.key for stage in after)]
        self.key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        self._record_file = folder / RECORD
        record = self._read_record()
        self.is_known = record.get('key') == self.key
        self.starts_anew = bool(record) and not self.is_known
        self._emptied = emptied
        if not self.is_known:
            record = {}
            self._check_folder()
        self.is_finished = record.get('finished', False) and has_product()
        self.seconds = record.get('seconds', 0.0)

    def run(self, work: Callable[[], None]) -> None:
        """Do the stage's work, unless it is finished; time that an interruption ends is counted too."""
        if self.is_finished:
            return
        if not self.is_known and self._emptied and self.folder.exists():
            self._check_folder()
            shutil.rmtree(self.folder)
        self._write_record()
        self.is_known = True
        began, seconds_before = time.monotonic(), self.seconds
        try:
            work()
            self.is_finished = True
        finally:
            self.seconds = seconds_before + time.monotonic() - began
            self._write_record()

    def _read_record(self) -> dict:
        try:
            return json.loads(self._record_file.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}

    def _write_record(self) -> None:
        record = json.dumps(dict(key=self.key, finished=self.is_finished, seconds=round(self.seconds, 1)))
        with written_whole(self._record_file) as file:
            file.write(record.encode())

    def _check_folder(self) -> None:
        """Refuse a folder that would have to be emptied, and is not from an earlier run."""
        if not self._emptied or not self.folder.exists() or self._record_file.exists():
            return
        if any(self.folder.iterdir()):
            raise UserError(f'{self.folder}: is not empty and not from an earlier run; choose another --work-dir')
