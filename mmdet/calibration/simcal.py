"""SimCal (ECCV 2020, arXiv 2007.11978): a re-trained classification head, heard for rare classes only."""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet.errors import ConfigError
from mmdet.models.layers.precision import at_least_float32
from mmdet.registry import CALIBRATORS
from mmdet.structures import ClassFrequency

from .calibrator import Calibrator
from .classification_heads import FineTunedHead, build_head


@CALIBRATORS.register_module()
class SimCal(Calibrator):
    """A second classification head for each stage, and the rule that merges it with the first.

    With p the base scores and q the calibrated ones of a RoI, the score of class z is

    * `dual`: q[z] if z has fewer than `threshold` training instances, else p[z]; background is p's (paper, eq. 2);
    * `calibrated`: q[z];
    * `average`: (p[z] + q[z]) / 2;
    * `base`: p[z].

    Scores are not normalised again.

    Args:
        head: `2fc_rand`, `3fc_rand` or `3fc_ft`.
        threshold: T, in training instances; at least 0.
    """

    score_settings = ('dual', 'calibrated', 'average')
    uses_base_outputs = False

    def __init__(self, head: str = '3fc_ft', threshold: int = 100):
        super().__init__()
        if threshold < 0:
            raise ConfigError(f'threshold={threshold}: SimCal\'s T counts training instances and cannot be below 0')
        self.head = head
        self.threshold = threshold

    def bind(self, base_heads: Sequence[nn.Module], frequency: ClassFrequency) -> 'SimCal':
        """One head for each of the detector's stages; `3fc_ft` starts as the base classifier itself.

        All of it is on the device the base heads are on.
        """
        self.heads = nn.ModuleList(build_head(self.head, base_head) for base_head in base_heads)
        copied_logits = base_heads[0].has_custom_cls_logits and isinstance(self.heads[0], FineTunedHead)
        self.to_softmax_logits = base_heads[0].loss_cls.to_softmax_logits if copied_logits else None
        counts = torch.as_tensor(frequency.instance_count)
        self.register_buffer('is_rare', counts < self.threshold, persistent=False)
        return self.to(base_heads[0].fc_cls.weight.device)

    def logits(
        self, roi_feats: Tensor, shared_feats: Tensor | None, base_logits: Tensor | None, stage: int = 0
    ) -> Tensor:
        """(R, D, S, S) RoI features -> (R, C + 1); the base's own features and logits play no part.

        A copy of a base that was trained with a loss of its own logits (Seesaw: C + 2) gives those.
        """
        return self.heads[stage](roi_feats)

    def loss(self, logits: Tensor, labels: Tensor, num_rois: float, stage: int = 0) -> dict[str, Tensor]:
        """Softmax cross-entropy over all C + 1 classes, its mean over the step's RoIs."""
        return {f's{stage}.loss_cls': F.cross_entropy(self._softmax_logits(logits), labels, reduction='sum') / num_rois}

    def scores(self, base_scores: Tensor, logits: Tensor, setting: str = 'dual') -> Tensor:
        """(R, C + 1) base scores and calibrated logits -> (R, C + 1) scores, at least float32."""
        self.check_setting(setting)
        if setting == 'base':
            return base_scores
        calibrated = self._softmax_logits(logits).softmax(dim=-1)
        if setting == 'calibrated':
            return calibrated
        if setting == 'average':
            return (base_scores + calibrated) / 2
        from_calibrated = F.pad(self.is_rare, (0, 1), value=False)
        return torch.where(from_calibrated, calibrated, base_scores)

    def _softmax_logits(self, logits: Tensor) -> Tensor:
        """Of whatever logits the heads give, those (R, C + 1) of an ordinary softmax, at least float32."""
        logits = at_least_float32(logits)
        return logits if self.to_softmax_logits is None else self.to_softmax_logits(logits)
