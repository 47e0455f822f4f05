"""Re-weighting, of the last layer alone, as it was published next to BAGS (Li et al., CVPR 2020)."""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet.registry import CALIBRATORS
from mmdet.structures import ClassFrequency

from ..calibrator import check_range, device_of
from ..step_rois import StepRoIs
from .class_counts import seen_counts
from .last_layer import LastLayer

WEIGHTS = ('inverse', 'effective_number')
LEAST, MOST = 0.1, 5.0


@CALIBRATORS.register_module()
class ReWeighting(LastLayer):
    """The base's last layer trained further, with more weight for the losses of rare classes.

    The weight of class c with n[c] training instances is in proportion to 1 / n[c] (`inverse`) or to
    (1 - beta) / (1 - beta ** n[c]) (`effective_number`; Cui et al., CVPR 2019), 1 in the mean of all classes, and then
    not below 0.1 nor above 5; background's is 1.

    Args:
        weights: see above.
        beta: of `effective_number`; from 0, below 1.
    """

    def __init__(self, weights: str = 'inverse', beta: float = 0.999):
        super().__init__()
        check_range('weights', weights, weights in WEIGHTS, ' or '.join(WEIGHTS))
        check_range('beta', beta, 0 <= beta < 1, 'a number from 0, below 1')
        self.weights = weights
        self.beta = beta

    def bind(self, base_heads: Sequence[nn.Module], frequency: ClassFrequency) -> 'ReWeighting':
        """Compute the weights of the classes."""
        counts = seen_counts(frequency.instance_count, frequency.names, device_of(base_heads))
        weight = 1 / counts if self.weights == 'inverse' else (1 - self.beta) / (1 - self.beta**counts)
        weight = (weight / weight.mean()).clamp(LEAST, MOST)
        self.register_buffer('class_weight', F.pad(weight, (0, 1), value=1.0).float(), persistent=False)
        return super().bind(base_heads, frequency)

    def reduced(self, losses: Tensor, step: StepRoIs) -> Tensor:
        """The mean of the weighted losses over the step's RoIs."""
        return (losses * self.class_weight[step.labels]).sum() / step.num_rois


@CALIBRATORS.register_module()
class TailFineTune(LastLayer):
    """The base's last layer trained further on objects of rare classes and background alone.

    RoIs of classes with `threshold` or more training instances are left out of the loss.

    Args:
        threshold: in training instances; at least 1.
    """

    def __init__(self, threshold: int = 100):
        super().__init__()
        check_range('threshold', threshold, threshold >= 1, 'a count of training instances from 1')
        self.threshold = threshold

    def bind(self, base_heads: Sequence[nn.Module], frequency: ClassFrequency) -> 'TailFineTune':
        """Find the rare classes."""
        is_rare = torch.as_tensor(frequency.instance_count, device=device_of(base_heads)) < self.threshold
        self.register_buffer('is_learnt', F.pad(is_rare, (0, 1), value=True), persistent=False)
        return super().bind(base_heads, frequency)

    def reduced(self, losses: Tensor, step: StepRoIs) -> Tensor:
        """The mean over the step's RoIs of rare classes and background."""
        return step.share_of_mean(losses, self.is_learnt[step.labels].float())
