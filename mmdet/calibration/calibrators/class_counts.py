"""Training counts that a formula divides by, or takes the logarithm of."""
import logging
from collections.abc import Sequence

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor

_NAMED = 3


def seen_counts(counts: np.ndarray, names: Sequence[str], device: torch.device) -> Tensor:
    """(C,) float64 counts in which a class that never occurs has 1, with a warning that names such classes.

    The published formulas have infinities there, which would spoil whole rows of scores.
    """
    missing = np.flatnonzero(counts == 0)
    if len(missing):
        some = ', '.join(repr(names[label]) for label in missing[:_NAMED])
        print_log(
            f'{len(missing)} of {len(counts)} classes have no training image and count as if they had one: {some}'
            f'{", ..." if len(missing) > _NAMED else ""}',
            logger='current',
            level=logging.WARNING,
        )
    return torch.as_tensor(np.maximum(counts, 1), dtype=torch.float64, device=device)
