"""Learnable weight scaling (LWS; Kang et al., "Decoupling Representation and Classifier", ICLR 2020)."""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet.models.layers.precision import at_least_float32
from mmdet.models.roi_heads.roi_outputs import RoIOutputs
from mmdet.registry import CALIBRATORS
from mmdet.structures import ClassFrequency

from ..calibrator import Calibrator, device_of
from ..step_rois import StepRoIs
from .softmax_logits import check_linear


@CALIBRATORS.register_module()
class LWS(Calibrator):
    """One learnt factor for the frozen weights of each class, background's included: f[c] * (x . w[c]) + b[c].

    All factors begin at 1, so that it begins as the base. As for cRT the config's sampler draws a class first.
    """

    def bind(self, base_heads: Sequence[nn.Module], frequency: ClassFrequency) -> 'LWS':
        """The factors of every stage.

        Raises:
            ConfigError: a base whose last layer is not linear.
        """
        check_linear(base_heads, 'LWS')
        self.factors = nn.Parameter(torch.ones(len(base_heads), len(frequency) + 1, device=device_of(base_heads)))
        return super().bind(base_heads, frequency)

    def logits(self, outputs: RoIOutputs, stage: int = 0) -> Tensor:
        """(R, C + 1) from the base's."""
        bias = outputs.head.fc_cls.bias
        return self.factors[stage] * (outputs.logits - bias) + bias

    def loss(self, logits: Tensor, step: StepRoIs, stage: int = 0) -> dict[str, Tensor]:
        """Softmax cross-entropy, its mean over the step's RoIs."""
        sum_of_losses = F.cross_entropy(at_least_float32(logits), step.labels, reduction='sum')
        return {f's{stage}.loss_cls': sum_of_losses / step.num_rois}

    def scores(self, base_scores: Tensor, logits: Tensor, setting: str = 'calibrated') -> Tensor:
        """(R, C + 1) base scores and scaled logits -> (R, C + 1) float32 scores."""
        self.check_setting(setting)
        return base_scores if setting == 'base' else logits.softmax(dim=1)
