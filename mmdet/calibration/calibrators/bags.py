"""Balanced group softmax (BAGS; Li et al., "Overcoming Classifier Imbalance for Long-tail Detection", CVPR 2020)."""
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

BACKGROUND, OBJECT = 0, 1
OTHERS = 0


@CALIBRATORS.register_module()
class BAGS(LastLayer):
    """A new last layer whose softmax competes only within groups of classes of about the same frequency.

    Classes are grouped by their training instances, by default below 10, 100, 1,000 and from there on. Each group has a
    slot `others` for everything that is not of its classes, and one group more is {background, object}. The layer has
    therefore C + 1 + G outputs for G groups of classes: background, object, and for each group `others` and its classes
    in label order.

    The loss is a sum over the groups of softmax cross-entropies, each a mean of its own: the first group's over all
    RoIs, and a group of classes' over the RoIs of its classes and, at random, `others_ratio` times as many of the
    others; a group without a RoI in the step has none. The score of a class is its probability in its group times that
    of `object`, and background's that of `background`; rows do not sum to 1.

    Args:
        edges: training instances at which the groups of classes divide, ascending; a class with as many is in the upper
            one.
        others_ratio: at least 0.
    """

    starts_from_base = False

    def __init__(self, edges: Sequence[int] = (10, 100, 1000), others_ratio: float = 8.0):
        super().__init__()
        check_range('edges', edges, list(edges) == sorted(set(edges)), 'ascending counts of training instances')
        check_range('others_ratio', others_ratio, others_ratio >= 0, 'a number from 0')
        self.edges = tuple(edges)
        self.others_ratio = others_ratio

    def bind(self, base_heads: Sequence[nn.Module], frequency: ClassFrequency) -> 'BAGS':
        """Sort the classes into groups, and say where each one's logit is."""
        group = group_of_class(frequency, self.edges)
        self.groups = [(group == g).nonzero().flatten() for g in range(len(self.edges) + 1)]
        self.widths = [2, *(1 + len(classes) for classes in self.groups)]
        own_slot, column = torch.empty_like(group), torch.empty_like(group)
        first = self.widths[0]
        for classes, width in zip(self.groups, self.widths[1:], strict=True):
            own_slot[classes] = torch.arange(1, width)
            column[classes] = first + own_slot[classes]
            first += width
        # Background is in no group of classes, and its slot in each is that of `others`.
        self.register_buffer('group', F.pad(group, (0, 1), value=-1), persistent=False)
        self.register_buffer('own_slot', F.pad(own_slot, (0, 1), value=OTHERS), persistent=False)
        self.register_buffer('column', column, persistent=False)
        super().bind(base_heads, frequency)
        return self.to(device_of(base_heads))

    def num_outputs(self, frequency: ClassFrequency) -> int:
        """How wide the layer is: C + 1 + G."""
        return sum(self.widths)

    def loss(self, logits: Tensor, step: StepRoIs, stage: int = 0) -> dict[str, Tensor]:
        """The loss of every group, `loss_cls_0` that of background and object."""
        pair, *of_groups = at_least_float32(logits).split(self.widths, dim=1)
        is_object = (step.labels < len(self.column)).long()
        losses = {f's{stage}.loss_cls_0': F.cross_entropy(pair, is_object, reduction='sum') / step.num_rois}
        for number, of_group in enumerate(of_groups):
            is_own = self.group[step.labels] == number
            slot = torch.where(is_own, self.own_slot[step.labels], OTHERS)
            weight = (is_own | self.chosen_others(is_own, step, number)).float()
            loss = step.share_of_mean(F.cross_entropy(of_group, slot, reduction='none'), weight)
            losses[f's{stage}.loss_cls_{number + 1}'] = loss
        return losses

    def chosen_others(self, is_own: Tensor, step: StepRoIs, group: int) -> Tensor:
        """(R,) bool, which RoIs stand for `others` in a group: so many, of the step's at random."""
        wanted = int(self.others_ratio * int(sum_over_ranks(is_own.sum())))
        # Numbers of others are from 0 to 1: none of the group's own RoIs is among the highest.
        chances = step.chances(group).where(~is_own, -1)
        num_others = int(sum_over_ranks((~is_own).sum()))
        _, lowest = highest_of_step(chances, min(wanted, num_others))
        return chances >= lowest

    def scores(self, base_scores: Tensor, logits: Tensor, setting: str = 'calibrated') -> Tensor:
        """(R, C + 1) base scores and the new layer's logits -> (R, C + 1) float32 scores."""
        self.check_setting(setting)
        if setting == 'base':
            return base_scores
        within = torch.cat([group.softmax(dim=1) for group in logits.split(self.widths, dim=1)], dim=1)
        return torch.cat([within[:, self.column] * within[:, OBJECT, None], within[:, BACKGROUND, None]], dim=1)


def group_of_class(frequency: ClassFrequency, edges: Sequence[int]) -> Tensor:
    """(C,) int64: the number of each class's group, 0 that of the rarest; a class with `edges[g]` is in group g + 1."""
    return torch.bucketize(torch.as_tensor(frequency.instance_count), torch.tensor(edges), right=True)
