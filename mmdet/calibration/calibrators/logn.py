"""LogN (Zhao et al., "LogN: Logit Normalization for Long-tailed Object Detection", IJCV 2024)."""
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmdet.models.roi_heads.roi_outputs import RoIOutputs
from mmdet.registry import CALIBRATORS
from mmdet.structures import ClassFrequency

from ..calibrator import Calibrator, check_range, device_of
from ..step_rois import StepRoIs, sum_over_ranks
from .softmax_logits import check_softmax, softmax_logits

_LEAST_VARIANCE = 1e-11


@CALIBRATORS.register_module()
class LogN(Calibrator):
    """Every class's logit brought to the same mean and deviation, as they are over the RoIs of the training images.

    With mu[c] and sigma[c] those of class c, its logit becomes (z[c] - (mu[c] - min mu)) / sigma[c], the minimum over
    the C classes; background's stays. No counts are needed. Mean and variance are running ones, as of a batch norm:
    each step they move by `momentum` towards the step's own, from 0 and 1, of which 29 % is left after 25,000 steps of
    5e-5.

    Args:
        momentum: above 0, at most 1.
    """

    def __init__(self, momentum: float = 1e-4):
        super().__init__()
        check_range('momentum', momentum, 0 < momentum <= 1, 'a number above 0, at most 1')
        self.momentum = momentum

    def bind(self, base_heads: Sequence[nn.Module], frequency: ClassFrequency) -> 'LogN':
        """Running statistics of every stage.

        Raises:
            ConfigError: a base without softmax logits.
        """
        check_softmax(base_heads, 'LogN')
        shape = len(base_heads), len(frequency) + 1
        self.register_buffer('running_mean', torch.zeros(shape, device=device_of(base_heads)))
        self.register_buffer('running_var', torch.ones(shape, device=device_of(base_heads)))
        return super().bind(base_heads, frequency)

    def observe(self, outputs: RoIOutputs, step: StepRoIs, stage: int = 0) -> None:
        """Move the statistics of a stage towards those of a step's RoIs, of all ranks together."""
        logits = softmax_logits(outputs.head, outputs.logits)
        count = sum_over_ranks(torch.tensor(float(len(logits)), device=logits.device))
        if count < 2:
            return
        mean = sum_over_ranks(logits.sum(dim=0)) / count
        var = sum_over_ranks((logits - mean).square().sum(dim=0)) / (count - 1)
        self.running_mean[stage].lerp_(mean, self.momentum)
        self.running_var[stage].lerp_(var, self.momentum)

    def logits(self, outputs: RoIOutputs, stage: int = 0) -> Tensor:
        """(R, C + 1) the base's logits, normalised."""
        mean, deviation = self.running_mean[stage].clone(), self.running_var[stage].clamp(min=_LEAST_VARIANCE).sqrt()
        mean[:-1] -= mean[:-1].min()
        mean[-1], deviation[-1] = 0, 1
        return (softmax_logits(outputs.head, outputs.logits) - mean) / deviation

    def scores(self, base_scores: Tensor, logits: Tensor, setting: str = 'calibrated') -> Tensor:
        """(R, C + 1) base scores and normalised logits -> (R, C + 1) float32 scores."""
        self.check_setting(setting)
        return base_scores if setting == 'base' else logits.softmax(dim=1)
