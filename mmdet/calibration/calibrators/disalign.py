"""DisAlign (Zhang et al., "Distribution Alignment for Long-tail Visual Recognition", CVPR 2021)."""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet.models.layers.precision import at_least_float32
from mmdet.models.roi_heads.roi_outputs import RoIOutputs
from mmdet.registry import CALIBRATORS
from mmdet.structures import ClassFrequency

from ..calibrator import Calibrator, check_range, device_of
from ..step_rois import StepRoIs
from .class_counts import seen_counts
from .last_layer import INITIAL_DEVIATION
from .softmax_logits import check_softmax, softmax_logits


@CALIBRATORS.register_module()
class DisAlign(Calibrator):
    """Every class's logit moved along a learnt line, as far as a learnt confidence in the RoI says.

    With x the input of the last layer, s = sigmoid(w . x + w0), and a and b of every class, the logit of a class
    becomes s * (a[c] * z[c] + b[c]) + (1 - s) * z[c]; background's stays. It begins as the base: a = 1, b = 0. The loss
    is the weighted mean of the softmax cross-entropy; the weight of class c is in proportion to (n[c] / sum n) **
    -scale, with n training instances, 1 in the mean of all classes, and background's is 1. This is the authors' form
    for detectors.

    Args:
        scale: of the weights; at least 0.
    """

    def __init__(self, scale: float = 0.8):
        super().__init__()
        check_range('scale', scale, scale >= 0, 'a number from 0')
        self.scale = scale

    def bind(self, base_heads: Sequence[nn.Module], frequency: ClassFrequency) -> 'DisAlign':
        """Lines and confidences of every stage, and the classes' weights.

        Raises:
            ConfigError: a base without softmax logits.
        """
        check_softmax(base_heads, 'DisAlign')
        device, shape = device_of(base_heads), (len(base_heads), len(frequency))
        self.slope = nn.Parameter(torch.ones(shape, device=device))
        self.offset = nn.Parameter(torch.zeros(shape, device=device))
        self.confidence = nn.ModuleList(nn.Linear(head.fc_cls.in_features, 1) for head in base_heads)
        for layer in self.confidence:
            nn.init.normal_(layer.weight, std=INITIAL_DEVIATION)
            nn.init.zeros_(layer.bias)
        self.confidence.to(device)
        counts = seen_counts(frequency.instance_count, frequency.names, device)
        weight = (counts / counts.sum()) ** -self.scale
        weight = weight / weight.mean()
        self.register_buffer('class_weight', F.pad(weight, (0, 1), value=1.0).float(), persistent=False)
        return super().bind(base_heads, frequency)

    def logits(self, outputs: RoIOutputs, stage: int = 0) -> Tensor:
        """(R, C + 1) aligned logits."""
        logits = softmax_logits(outputs.head, outputs.logits)
        confidence = self.confidence[stage](outputs.class_feats).sigmoid()
        objects = logits[:, :-1]
        moved = self.slope[stage] * objects + self.offset[stage]
        return torch.cat([confidence * moved + (1 - confidence) * objects, logits[:, -1:]], dim=1)

    def loss(self, logits: Tensor, step: StepRoIs, stage: int = 0) -> dict[str, Tensor]:
        """The weighted mean of the softmax cross-entropy over the step's RoIs."""
        losses = F.cross_entropy(at_least_float32(logits), step.labels, reduction='none')
        return {f's{stage}.loss_cls': step.share_of_mean(losses, self.class_weight[step.labels])}

    def scores(self, base_scores: Tensor, logits: Tensor, setting: str = 'calibrated') -> Tensor:
        """(R, C + 1) base scores and aligned logits -> (R, C + 1) float32 scores."""
        self.check_setting(setting)
        return base_scores if setting == 'base' else logits.softmax(dim=1)
