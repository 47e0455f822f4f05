"""The place of a base's classifier in a detector whose checkpoint does not hold it.

Such are the detectors that were published with a calibrator's last layer where the base's own had been.
"""
import torch
from torch import Tensor, nn

from mmdet.models.detectors import BaseDetector


class MissingClassifier(nn.Module):
    """Gives logits that are no numbers, so that no detection can come of them; it has no parameters.

    Args:
        num_logits: how many of a RoI.
    """

    def __init__(self, num_logits: int):
        super().__init__()
        self.num_logits = num_logits

    def forward(self, feats: Tensor) -> Tensor:
        """(R, D) features -> (R, num_logits) NaN."""
        return feats.new_full((len(feats), self.num_logits), torch.nan)


def remove_classifiers(detector: BaseDetector) -> None:
    """Take a detector's own classifiers out; its calibrator, which is attached, knows of it."""
    for head in detector.box_heads:
        head.fc_cls = MissingClassifier(head.num_cls_logits)
    detector.calibrator.has_base = False
