"""ACSL (Wang et al., "Adaptive Class Suppression Loss for Long-Tail Object Detection", CVPR 2021)."""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet.models.layers.precision import at_least_float32
from mmdet.registry import CALIBRATORS
from mmdet.structures import ClassFrequency

from ..calibrator import check_range, device_of
from ..step_rois import StepRoIs, highest_of_step, sum_over_ranks
from .last_layer import LastLayer

RARE, COMMON = 10, 100
SUPPRESSING = (0.01, 0.1)
"""The shares of background RoIs that suppress rare classes (up to 10 training images) and common ones (up to 100)."""


@CALIBRATORS.register_module()
class ACSL(LastLayer):
    """A new last layer of a sigmoid for every class and background, in which an object suppresses only near misses.

    A RoI of an object takes part in the loss of its own class and of every other one, background included, whose score
    reaches `score_thr`. A RoI of background takes part in the loss of background and of frequent classes; 10 % of those
    of a step, at random, in that of common classes, and 1 % in that of rare ones. The loss is the sum of binary
    cross-entropies, divided by the step's RoIs.

    Args:
        score_thr: from 0 to 1.
    """

    starts_from_base = False

    def __init__(self, score_thr: float = 0.7):
        super().__init__()
        check_range('score_thr', score_thr, 0 <= score_thr <= 1, 'a number from 0 to 1')
        self.score_thr = score_thr

    def bind(self, base_heads: Sequence[nn.Module], frequency: ClassFrequency) -> 'ACSL':
        """Sort the classes into rare, common and frequent ones."""
        images = torch.as_tensor(frequency.image_count, device=device_of(base_heads))
        group = (images > RARE).long() + (images > COMMON).long()
        self.register_buffer('group', F.pad(group, (0, 1), value=len(SUPPRESSING)), persistent=False)
        return super().bind(base_heads, frequency)

    def loss(self, logits: Tensor, step: StepRoIs, stage: int = 0) -> dict[str, Tensor]:
        """The sum of the binary cross-entropies that take part, divided by the step's RoIs."""
        logits = at_least_float32(logits)
        target = F.one_hot(step.labels, logits.shape[1]).to(logits.dtype)
        losses = F.binary_cross_entropy_with_logits(logits, target, reduction='none')
        return {f's{stage}.loss_cls': (losses * self.taking_part(logits.detach(), step)).sum() / step.num_rois}

    def taking_part(self, logits: Tensor, step: StepRoIs) -> Tensor:
        """(R, C + 1) bool, which entries of the logits the loss looks at."""
        is_background = step.labels == logits.shape[1] - 1
        near = logits.sigmoid() >= self.score_thr
        near[torch.arange(len(near), device=near.device), step.labels] = True
        suppressed = torch.ones_like(near)
        num_background = int(sum_over_ranks(is_background.sum()))
        for group, share in enumerate(SUPPRESSING):
            chances = step.chances(group).where(is_background, -1)
            _, lowest = highest_of_step(chances, int(share * num_background))
            suppressed[:, self.group == group] = (chances >= lowest)[:, None]
        return torch.where(is_background[:, None], suppressed, near)

    def scores(self, base_scores: Tensor, logits: Tensor, setting: str = 'calibrated') -> Tensor:
        """(R, C + 1) base scores and the new layer's logits -> (R, C + 1) float32 scores."""
        self.check_setting(setting)
        return base_scores if setting == 'base' else logits.sigmoid()
