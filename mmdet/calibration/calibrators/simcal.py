"""SimCal (ECCV 2020, arXiv 2007.11978): a re-trained classification head, heard for rare classes only."""
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet.errors import ConfigError
from mmdet.models.layers.precision import at_least_float32
from mmdet.models.roi_heads.roi_outputs import RoIOutputs
from mmdet.registry import CALIBRATORS
from mmdet.structures import ClassFrequency

from ..calibrator import Calibrator, check_range, device_of
from ..step_rois import StepRoIs
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
    compared_settings = ('base', 'calibrated', 'dual')
    learns_from = 'roi_feats'
    choices = {'threshold': (100, 10, 30, 300)}

    def __init__(self, head: str = '3fc_ft', threshold: int = 100):
        super().__init__()
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
        self.register_buffer('instance_count', torch.as_tensor(frequency.instance_count), persistent=False)
        self.to(device_of(base_heads))
        return super().bind(base_heads, frequency)

    def choose(self, **values: int) -> None:
        """Set T.

        Raises:
            ConfigError: a T below 0.
        """
        super().choose(**values)
        check_range('threshold', self.threshold, self.threshold >= 0, 'a count of training instances from 0')
        self.register_buffer('is_rare', self.instance_count < self.threshold, persistent=False)

    def depends_on(self, choice: str, setting: str) -> bool:
        """T matters to the dual-head rule alone."""
        return setting == 'dual'

    def logits(self, outputs: RoIOutputs, stage: int = 0) -> Tensor:
        """(R, C + 1) from the RoI features; the base's own features and logits play no part.

        A copy of a base that was trained with a loss of its own logits (Seesaw: C + 2) gives those.
        """
        return self.heads[stage](outputs.roi_feats)

    def loss(self, logits: Tensor, step: StepRoIs, stage: int = 0) -> dict[str, Tensor]:
        """Softmax cross-entropy over all C + 1 classes, its mean over the step's RoIs."""
        sum_of_losses = F.cross_entropy(self._softmax_logits(logits), step.labels, reduction='sum')
        return {f's{stage}.loss_cls': sum_of_losses / step.num_rois}

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
        """Of whatever logits the heads give, those (R, C + 1) of an ordinary softmax, at least float32."""
        logits = at_least_float32(logits)
        return logits if self.to_softmax_logits is None else self.to_softmax_logits(logits)
