"""Reading checkpoints of strangers: their tensors and plain data, and nothing else of what they hold."""
import re
from pathlib import Path
from typing import Any

import torch

from mmdet.engine import read_checkpoint
from mmdet.errors import CheckpointError


class LeftAside(dict):
    """Stands in for an object that is not data: it keeps nothing of what it is made from, and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()

    def __setitem__(self, key: Any, value: Any) -> None:
        """Keep nothing."""

    def __setstate__(self, state: Any) -> None:
        """Keep nothing."""


def read_data_only(path: str | Path) -> tuple[dict[str, Any], list[str]]:
    """Read a checkpoint as `read_checkpoint` does, leaving aside what is not data instead of refusing the file.

    mmdetection's checkpoints may hold its own objects in their `meta`, such as a config. Each such object is
    replaced by an empty `LeftAside`; none of the code that it names is looked up or run.

    Returns:
        The checkpoint, and the full names of the classes and functions left aside.

    Raises:
        CheckpointError: as `read_checkpoint`, also where weights themselves are such objects.
    """
    left_aside: list[str] = []
    while True:
        try:
            with torch.serialization.safe_globals([(LeftAside, name) for name in left_aside]):
                return read_checkpoint(path), left_aside
        except CheckpointError as error:
            refused = re.search(r'Unsupported global: GLOBAL ([\w.]+)', str(error.__cause__))
            if refused is None or refused.group(1) in left_aside:
                raise
            left_aside.append(refused.group(1))
