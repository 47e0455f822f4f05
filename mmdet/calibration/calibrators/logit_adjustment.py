"""Logit adjustment (Menon et al., "Long-tail learning via logit adjustment", ICLR 2021), after training."""
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from mmdet.registry import CALIBRATORS
from mmdet.structures import ClassFrequency

from ..calibrator import check_range, device_of
from ..composition import Part, ScoreRule
from .class_counts import seen_counts
from .norcal import normalised


@CALIBRATORS.register_module()
class LogitAdjustment(ScoreRule):
    """From the logit of a class tau times the logarithm of its prior is taken; background's stays.

    The prior of class c is n[c] / sum n, with n its training instances. On probabilities p that is p[c] * prior[c] **
    -tau, with every RoI's row made to sum to 1 again.

    Args:
        tau: at least 0.
        on, on_scores: see `ScoreRule`.
    """

    choices = {'tau': (1.0, 0.05, 0.1, 0.2, 0.4)}

    def __init__(self, tau: float = 1.0, on: Part = None, on_scores: str | None = None):
        super().__init__(on, on_scores)
        self.tau = tau

    def bind(self, base_heads: Sequence[nn.Module], frequency: ClassFrequency) -> 'LogitAdjustment':
        """Count the training instances of every class."""
        counts = seen_counts(frequency.instance_count, frequency.names, device_of(base_heads))
        self.register_buffer('prior', counts / counts.sum(), persistent=False)
        return super().bind(base_heads, frequency)

    def choose(self, **values: float) -> None:
        """Set tau.

        Raises:
            ConfigError: a tau below 0.
        """
        super().choose(**values)
        check_range('tau', self.tau, self.tau >= 0, 'a number from 0')
        self.register_buffer('factors', F.pad(self.prior**-self.tau, (0, 1), value=1.0).float(), persistent=False)

    def adjusted(self, scores: Tensor) -> Tensor:
        """(R, C + 1) scores -> (R, C + 1) scores whose rows sum to 1."""
        return normalised(scores * self.factors)
