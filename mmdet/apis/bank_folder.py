"""A feature bank's folder: segments that are there whole or not at all, and a note of what they were made from."""
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError

import torch

from mmdet.calibration import FeatureBank
from mmdet.errors import ConfigError, UserError
from mmdet.utils.files import written_whole

_NOTE = 'feature_bank.json'
_SEGMENTS = '*.segment'
_KEPT = 'features'


class BankFolder:
    """Where a feature bank is kept.

    Args:
        path: of the folder, which need not exist.
        made_from: what the features depend on, each under the name a user knows it by; plain JSON.
        most_backgrounds: for each stage the kinds of features that are needed, and of how many background RoIs of a
            view.

    Attributes:
        bank: of the segments that have been read.
        most_backgrounds: what the bank keeps: as needed, or the more that a bank which is there has.

    Raises:
        ConfigError: the folder holds a bank that was made from something else, or that keeps less.
    """

    def __init__(
        self, path: str | Path, made_from: Mapping[str, str | int], most_backgrounds: Sequence[Mapping[str, int]]
    ):
        self.path = Path(path)
        self.made_from = dict(made_from)
        self.most_backgrounds = [dict(of_stage) for of_stage in most_backgrounds]
        self.bank = FeatureBank()
        self._read: set[Path] = set()
        self._check_note()
        self.read_new_segments()

    def num_bytes(self) -> int:
        """Size of all segments."""
        return sum(file.stat().st_size for file in self.path.glob(_SEGMENTS))

    def read_new_segments(self) -> None:
        """Map the segments that have been written since, by any process.

        Raises:
            UserError: naming a damaged segment.
        """
        for file in sorted(set(self.path.glob(_SEGMENTS)) - self._read):
            try:
                self.bank.include(torch.load(file, map_location='cpu', weights_only=True, mmap=True))
            except (RuntimeError, OSError, UnpicklingError, EOFError, KeyError) as error:
                raise UserError(f'{file}: is damaged; delete it, and its features are extracted again') from error
            self._read.add(file)

    def write(self, segment: Mapping) -> None:
        """Write a segment under a name that follows from its views; the first one is preceded by the note.

        Raises:
            UserError: the disk is full, or the folder cannot be written.
        """
        note = json.dumps(self.made_from | {_KEPT: self.most_backgrounds}, indent=2).encode()
        if not (self.path / _NOTE).is_file():
            with written_whole(self.path / _NOTE) as file:
                file.write(note)
        name = hashlib.sha256(segment['views'].numpy().tobytes()).hexdigest()[:16]
        with written_whole(self.path / f'{name}.segment') as file:
            torch.save(segment, file)

    def _check_note(self) -> None:
        note = self.path / _NOTE
        if not note.is_file() and not any(self.path.glob(_SEGMENTS)):
            return
        try:
            known = json.loads(note.read_text())
        except (OSError, ValueError):
            known = {}
        other = [name for name, value in self.made_from.items() if known.get(name) != value]
        if other:
            raise ConfigError(
                f'{self.path}: the feature bank there was made from another {" and another ".join(other)}; '
                'delete that folder, or name another one with calibration.feature_bank.dir'
            )
        self._take_over(known.get(_KEPT, []))

    def _take_over(self, kept: Sequence[Mapping[str, int]]) -> None:
        """Keep as many features as the bank that is there, if these suffice."""
        for of_stage, needed in zip(kept, self.most_backgrounds, strict=True):
            for kind, backgrounds in needed.items():
                if of_stage.get(kind, -1) < backgrounds:
                    there = ', '.join(f'{name} of {number} background RoIs' for name, number in of_stage.items())
                    raise ConfigError(
                        f'{self.path}: the feature bank there keeps {there}, and this calibration needs {kind} of '
                        f'{backgrounds}; delete that folder, or name another one with calibration.feature_bank.dir'
                    )
        self.most_backgrounds = [dict(of_stage) for of_stage in kept]
