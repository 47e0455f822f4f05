"""A calibrator in a file of its own: rare classes are lifted until their mean score is that of the median class."""
import torch

from mmdet.calibration import ScoreRule
from mmdet.registry import CALIBRATORS


@CALIBRATORS.register_module()
class MedianCount(ScoreRule):
    """The score of class c is multiplied by (median of n / n[c]) ** strength, n being training instances; at most 1."""

    choices = {'strength': (0.5, 0.25, 1.0)}

    def __init__(self, strength=0.5, on=None, on_scores=None):
        super().__init__(on, on_scores)
        self.strength = strength

    def bind(self, base_heads, frequency):
        count = torch.as_tensor(frequency.instance_count, device=base_heads[0].fc_cls.weight.device).clamp(min=1)
        self.register_buffer('ratio', count.median() / count, persistent=False)
        return super().bind(base_heads, frequency)

    def adjusted(self, scores):
        lifted = scores[:, :-1] * self.ratio**self.strength
        return torch.cat([lifted.clamp(max=1), scores[:, -1:]], dim=1)
