"""Nearest class mean (NCM), in the place of a trained classifier (Kang et al., ICLR 2020; Li et al., CVPR 2020)."""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet.models.layers.precision import at_least_float32
from mmdet.models.roi_heads.roi_outputs import RoIOutputs
from mmdet.registry import CALIBRATORS
from mmdet.structures import ClassFrequency

from ..calibrator import Calibrator, check_range, device_of
from ..step_rois import StepRoIs, sum_over_ranks


@CALIBRATORS.register_module()
class NCM(Calibrator):
    """A RoI is of the class whose mean features its own are most like; background is as the base finds it.

    With s[c] the cosine of the angle between the RoI's features and the mean of those of the training RoIs of class c,
    the scores of the classes are (1 - p[background]) * softmax(s / temperature). No code was published: the features
    are the input of the last layer (the paper's `NCM-fc`), and cosine and temperature are this project's. A class that
    no training RoI has keeps a score of 0.

    Args:
        temperature: above 0.
    """

    choices = {'temperature': (0.05, 0.01, 0.02, 0.1)}

    def __init__(self, temperature: float = 0.05):
        super().__init__()
        self.temperature = temperature

    def bind(self, base_heads: Sequence[nn.Module], frequency: ClassFrequency) -> 'NCM':
        """Sums of features and counts of RoIs, for every class at every stage."""
        shape = len(base_heads), len(frequency)
        device, features = device_of(base_heads), base_heads[0].fc_cls.in_features
        self.register_buffer('feature_sum', torch.zeros(*shape, features, device=device))
        self.register_buffer('roi_count', torch.zeros(shape, device=device))
        return super().bind(base_heads, frequency)

    def choose(self, **values: float) -> None:
        """Set the temperature.

        Raises:
            ConfigError: one that is not above 0.
        """
        super().choose(**values)
        if values:
            self._source = object()
        check_range('temperature', self.temperature, self.temperature > 0, 'a number above 0')

    def observe(self, outputs: RoIOutputs, step: StepRoIs, stage: int = 0) -> None:
        """Add the step's positives, of all ranks, to the sums of their classes."""
        is_object = step.labels < self.roi_count.shape[1]
        labels, feats = step.labels[is_object], at_least_float32(outputs.class_feats[is_object])
        sums = torch.zeros_like(self.feature_sum[stage]).index_add_(0, labels, feats)
        counts = torch.bincount(labels, minlength=len(self.roi_count[stage])).to(sums.dtype)
        self.feature_sum[stage] += sum_over_ranks(sums)
        self.roi_count[stage] += sum_over_ranks(counts)

    def logits(self, outputs: RoIOutputs, stage: int = 0) -> Tensor:
        """(R, C) cosines over the temperature, minus infinity for a class without a mean."""
        cosines = F.linear(F.normalize(at_least_float32(outputs.class_feats)), F.normalize(self.feature_sum[stage]))
        return (cosines / self.temperature).masked_fill(self.roi_count[stage] == 0, -torch.inf)

    def scores(self, base_scores: Tensor, logits: Tensor, setting: str = 'calibrated') -> Tensor:
        """(R, C + 1) base scores and cosines -> (R, C + 1) float32 scores whose rows sum to 1."""
        self.check_setting(setting)
        if setting == 'base':
            return base_scores
        background = base_scores[:, -1:]
        return torch.cat([(1 - background) * logits.softmax(dim=1).nan_to_num(0.0), background], dim=1)
