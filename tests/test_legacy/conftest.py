"""Fixtures of the tests of released detectors."""
from pathlib import Path

import cv2
import numpy as np
import pytest

from .released_files import ORIGINAL_SIZE


@pytest.fixture
def photograph(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / 'photograph.png'
    cv2.imwrite(str(path), cv2.resize(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8), ORIGINAL_SIZE[::-1]))
    return path
