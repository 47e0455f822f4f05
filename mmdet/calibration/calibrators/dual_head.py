"""SimCal's dual-head rule between any two sets of scores, and their mean."""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet.registry import CALIBRATORS
from mmdet.structures import ClassFrequency

from ..calibrator import check_range, device_of
from ..composition import ComposedCalibrator, Part


@CALIBRATORS.register_module()
class DualHead(ComposedCalibrator):
    """Rare classes take their scores from one calibrator, the others and background from another (SimCal, eq. 2).

    Scores are not normalised again.

    Args:
        rare: config of the calibrator of classes with fewer than `threshold` training instances; None: the detector's
            own scores, here and for `others`.
        others: of all other classes and of background.
        rare_scores, others_scores: which score settings of these; None is their default.
        threshold: T, in training instances; at least 0.
    """

    choices = {'threshold': (100, 10, 30, 300)}

    def __init__(
        self,
        rare: Part = None,
        others: Part = None,
        rare_scores: str | None = None,
        others_scores: str | None = None,
        threshold: int = 100,
    ):
        super().__init__(dict(rare=rare_scores, others=others_scores), rare=rare, others=others)
        self.threshold = threshold

    def bind(self, base_heads: Sequence[nn.Module], frequency: ClassFrequency) -> 'DualHead':
        """Count the training instances of every class."""
        counts = torch.as_tensor(frequency.instance_count, device=device_of(base_heads))
        self.register_buffer('instance_count', counts, persistent=False)
        return super().bind(base_heads, frequency)

    def choose(self, **values: int) -> None:
        """Set T.

        Raises:
            ConfigError: a T below 0.
        """
        super().choose(**values)
        check_range('threshold', self.threshold, self.threshold >= 0, 'a count of training instances from 0')
        is_rare = F.pad(self.instance_count < self.threshold, (0, 1), value=False)
        self.register_buffer('is_rare', is_rare, persistent=False)

    def composed(self, rare: Tensor, others: Tensor) -> Tensor:
        """(R, C + 1) scores of both -> (R, C + 1), column by column from one of them."""
        return torch.where(self.is_rare, rare, others)


@CALIBRATORS.register_module()
class MeanScores(ComposedCalibrator):
    """The mean of two calibrators' scores.

    Args:
        first, second: their configs; None: the detector's own scores.
        first_scores, second_scores: which score settings of these; None is their default.
    """

    def __init__(
        self,
        first: Part = None,
        second: Part = None,
        first_scores: str | None = None,
        second_scores: str | None = None,
    ):
        super().__init__(dict(first=first_scores, second=second_scores), first=first, second=second)

    def composed(self, first: Tensor, second: Tensor) -> Tensor:
        """(R, C + 1) scores of both -> their mean."""
        return (first + second) / 2
