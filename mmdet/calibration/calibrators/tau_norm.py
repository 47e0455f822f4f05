"""Tau-normalised classifiers (Kang et al., "Decoupling Representation and Classifier", ICLR 2020)."""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet.models.roi_heads.roi_outputs import RoIOutputs
from mmdet.registry import CALIBRATORS
from mmdet.structures import ClassFrequency

from ..calibrator import Calibrator, check_range, device_of
from .softmax_logits import check_linear


@CALIBRATORS.register_module()
class TauNorm(Calibrator):
    """The weights of every class divided by a power of their length, which is larger for frequent classes.

    With w[c] and b[c] the base's last layer, logits are x . w[c] / |w[c]| ** tau + b[c], and the scores

    * `calibrated`: their softmax;
    * `select`: the same, but only for RoIs that the base does not find to be background and to which `calibrated` gives
      a class with fewer than `threshold` training instances; the other RoIs keep the base's scores.

    Both are as published next to BAGS (Li et al., CVPR 2020); the first loses half of a detector's AP.

    Args:
        tau: at least 0; 0 changes nothing.
        background: whether background's weights are divided too.
        threshold: see above; at least 0.
    """

    score_settings = ('select', 'calibrated')
    compared_settings = ('base', 'calibrated', 'select')
    choices = {'tau': (1.0, 0.5), 'threshold': (100, 30)}

    def __init__(self, tau: float = 1.0, background: bool = False, threshold: int = 100):
        super().__init__()
        self.tau = tau
        self.background = background
        self.threshold = threshold

    def bind(self, base_heads: Sequence[nn.Module], frequency: ClassFrequency) -> 'TauNorm':
        """Count the training instances of every class.

        Raises:
            ConfigError: a base whose last layer is not linear.
        """
        check_linear(base_heads, 'TauNorm')
        counts = torch.as_tensor(frequency.instance_count, device=device_of(base_heads))
        self.register_buffer('instance_count', counts, persistent=False)
        return super().bind(base_heads, frequency)

    def choose(self, **values: float) -> None:
        """Set tau and T.

        Raises:
            ConfigError: one below 0.
        """
        super().choose(**values)
        if 'tau' in values:
            self._source = object()
        check_range('tau', self.tau, self.tau >= 0, 'a number from 0')
        check_range('threshold', self.threshold, self.threshold >= 0, 'a count of training instances from 0')
        is_rare = F.pad(self.instance_count < self.threshold, (0, 1), value=False)
        self.register_buffer('is_rare', is_rare, persistent=False)

    def depends_on(self, choice: str, setting: str) -> bool:
        """T matters to the selection alone."""
        return choice == 'tau' or setting == 'select'

    def logits(self, outputs: RoIOutputs, stage: int = 0) -> Tensor:
        """(R, C + 1) logits of the base with its weights normalised."""
        weight, bias = normalised_classifier(outputs.head.fc_cls, self.tau, self.background)
        return F.linear(outputs.class_feats, weight, bias)

    def scores(self, base_scores: Tensor, logits: Tensor, setting: str = 'select') -> Tensor:
        """(R, C + 1) base scores and normalised logits -> (R, C + 1) float32 scores."""
        self.check_setting(setting)
        if setting == 'base':
            return base_scores
        calibrated = logits.softmax(dim=1)
        if setting == 'calibrated':
            return calibrated
        finds_object = base_scores.argmax(dim=1) < len(self.instance_count)
        replaced = finds_object & self.is_rare[calibrated.argmax(dim=1)]
        return torch.where(replaced[:, None], calibrated, base_scores)


def normalised_classifier(layer: nn.Linear, tau: float, background: bool) -> tuple[Tensor, Tensor]:
    """(C + 1, D) weights, each divided by its length to the power tau, and the (C + 1,) biases as they are.

    Args:
        layer: background last.
        tau: see above.
        background: whether its weights are divided too.
    """
    divisor = layer.weight.norm(dim=1, keepdim=True) ** tau
    if not background:
        divisor = torch.cat([divisor[:-1], torch.ones_like(divisor[-1:])])
    return layer.weight / divisor, layer.bias
