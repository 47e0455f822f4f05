"""SimCal (ECCV 2020, arXiv 2007.11978): a re-trained classification head, heard for rare classes only."""
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet.errors import ConfigError
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

        Raises:
            ConfigError: a `3fc_ft` of a base whose loss has no softmax logits (those with a sigmoid for each class).
        """
        self.heads = nn.ModuleList(build_head(self.head, base_head) for base_head in base_heads)
        self.to_softmax_logits = self._to_softmax_logits(base_heads[0])
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
        """(R, C + 1) base scores and calibrated logits -> (R, C + 1) float32 scores."""
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

    def _to_softmax_logits(self, base_head: nn.Module) -> Callable[[Tensor], Tensor] | None:
        """What makes softmax logits of those of a head; None where they are softmax logits."""
        if not isinstance(self.heads[0], FineTunedHead) or not base_head.has_custom_cls_logits:
            return None
        loss = base_head.loss_cls
        if not hasattr(loss, 'to_softmax_logits'):
            raise ConfigError(
                f'calibration.calibrator.head={self.head!r} copies the classifier of a base trained with '
                f'{type(loss).__name__}, which has no softmax logits: choose 2fc_rand or 3fc_rand'
            )
        return loss.to_softmax_logits

    def _softmax_logits(self, logits: Tensor) -> Tensor:
        """Of whatever logits the heads give, those (R, C + 1) of an ordinary softmax, float32."""
        return logits.float() if self.to_softmax_logits is None else self.to_softmax_logits(logits.float())
