"""NorCal (Pan et al., "On Model Calibration for Long-Tailed Object Detection", NeurIPS 2021)."""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet.registry import CALIBRATORS
from mmdet.structures import ClassFrequency

from ..calibrator import check_range, device_of
from ..composition import Part, ScoreRule
from .class_counts import seen_counts

FACTORS = ('power', 'effective_number')


@CALIBRATORS.register_module()
class NorCal(ScoreRule):
    """Scores of objects are divided by a power of their class's training images, and every RoI's row sums to 1 again.

    With m[c] the training images of class c, its score is in proportion to p[c] * m[c] ** -gamma (factor `power`), or
    to p[c] * (1 - gamma) / (1 - gamma ** m[c]) (`effective_number`, the weights of Cui et al., CVPR 2019); background
    keeps the factor 1. With gamma 0 nothing changes.

    Args:
        gamma: at least 0; below 1 for `effective_number`.
        factor: see above.
        on, on_scores: see `ScoreRule`.
    """

    choices = {'gamma': (0.6, 0.1, 0.2, 0.3, 0.4, 0.5, 0.8, 1.0)}

    def __init__(self, gamma: float = 0.6, factor: str = 'power', on: Part = None, on_scores: str | None = None):
        super().__init__(on, on_scores)
        check_range('factor', factor, factor in FACTORS, ' or '.join(FACTORS))
        self.gamma = gamma
        self.factor = factor

    def bind(self, base_heads: Sequence[nn.Module], frequency: ClassFrequency) -> 'NorCal':
        """Count the training images of every class."""
        counts = seen_counts(frequency.image_count, frequency.names, device_of(base_heads))
        self.register_buffer('image_count', counts, persistent=False)
        return super().bind(base_heads, frequency)

    def choose(self, **values: float) -> None:
        """Set gamma.

        Raises:
            ConfigError: a gamma out of its range.
        """
        super().choose(**values)
        if self.factor == 'power':
            check_range('gamma', self.gamma, self.gamma >= 0, 'a number from 0')
            factors = self.image_count**-self.gamma
        else:
            check_range('gamma', self.gamma, 0 <= self.gamma < 1, 'a number from 0, below 1')
            factors = (1 - self.gamma) / (1 - self.gamma**self.image_count)
        self.register_buffer('factors', F.pad(factors, (0, 1), value=1.0).float(), persistent=False)

    def adjusted(self, scores: Tensor) -> Tensor:
        """(R, C + 1) scores -> (R, C + 1) scores whose rows sum to 1."""
        return normalised(scores * self.factors)


def normalised(scores: Tensor) -> Tensor:
    """Rows (R, C + 1) that sum to 1; a row of zeros stays one."""
    return scores / scores.sum(dim=1, keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)
