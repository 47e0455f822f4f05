"""Calibrators that train a new last layer, on the features the base's own last layer sees."""
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from mmdet.models.layers.precision import at_least_float32
from mmdet.models.roi_heads.roi_outputs import RoIOutputs
from mmdet.structures import ClassFrequency

from ..calibrator import Calibrator, device_of
from ..step_rois import StepRoIs
from .softmax_logits import check_linear

INITIAL_DEVIATION = 0.01


class LastLayer(Calibrator):
    """A linear last layer for every stage, trained by softmax cross-entropy; each method says with which weights.

    It begins as the base's own (`starts_from_base`), or with normal weights of deviation 0.01, as a box head's does.
    """

    starts_from_base = True

    def bind(self, base_heads: Sequence[nn.Module], frequency: ClassFrequency) -> 'LastLayer':
        """A layer for each of the detector's stages.

        Raises:
            ConfigError: a base whose last layer is not linear, for a method that begins as it.
        """
        if self.starts_from_base:
            check_linear(base_heads, type(self).__name__)
        num_outputs = self.num_outputs(frequency)
        self.layers = nn.ModuleList(self._layer(head, num_outputs) for head in base_heads)
        self.to(device_of(base_heads))
        return super().bind(base_heads, frequency)

    def num_outputs(self, frequency: ClassFrequency) -> int:
        """How wide the layer is: C + 1."""
        return len(frequency) + 1

    def logits(self, outputs: RoIOutputs, stage: int = 0) -> Tensor:
        """(R, C + 1) of the new layer."""
        return self.layers[stage](outputs.class_feats)

    def loss(self, logits: Tensor, step: StepRoIs, stage: int = 0) -> dict[str, Tensor]:
        """Softmax cross-entropy, its mean over the step's RoIs."""
        losses = F.cross_entropy(at_least_float32(logits), step.labels, reduction='none')
        return {f's{stage}.loss_cls': self.reduced(losses, step)}

    def reduced(self, losses: Tensor, step: StepRoIs) -> Tensor:
        """From the losses of R RoIs to one number; the mean."""
        return losses.sum() / step.num_rois

    def scores(self, base_scores: Tensor, logits: Tensor, setting: str = 'calibrated') -> Tensor:
        """(R, C + 1) base scores and the new layer's logits -> (R, C + 1) float32 scores."""
        self.check_setting(setting)
        return base_scores if setting == 'base' else logits.softmax(dim=1)

    def _layer(self, head: nn.Module, num_outputs: int) -> nn.Linear:
        layer = nn.Linear(head.fc_cls.in_features, num_outputs)
        if self.starts_from_base:
            layer.load_state_dict(head.fc_cls.state_dict())
        else:
            nn.init.normal_(layer.weight, std=INITIAL_DEVIATION)
            nn.init.zeros_(layer.bias)
        return layer
