"""Which of the assigned boxes are used in a training step."""
from dataclasses import dataclass

import torch
from torch import Tensor

from mmdet.registry import TASK_UTILS

from .max_iou_assigner import Assignment


@dataclass(frozen=True)
class SampledRoIs:
    """P positive and Q negative boxes of one image, each in the order they were offered.

    Attributes:
        pos_index, neg_index: (P,), (Q,) int64, which of the boxes offered (ground truths first, where they are added).
        pos_boxes, neg_boxes: (P, 4), (Q, 4).
        pos_gt_index: (P,) int64, 0-based, the ground truth each positive is to find.
        pos_gt_boxes: (P, 4), its box.
        pos_gt_labels: (P,) int64, its label.
        pos_is_gt: (P,) bool, whether the positive is an added ground truth itself.
    """

    pos_index: Tensor
    neg_index: Tensor
    pos_boxes: Tensor
    neg_boxes: Tensor
    pos_gt_index: Tensor
    pos_gt_boxes: Tensor
    pos_gt_labels: Tensor
    pos_is_gt: Tensor

    @property
    def boxes(self) -> Tensor:
        """(P + Q, 4): the positives, then the negatives."""
        return torch.cat([self.pos_boxes, self.neg_boxes])

    @property
    def avg_factor(self) -> int:
        """By what a head's loss over these is divided: P + Q, each counted as at least one (as mmdetection does)."""
        return max(len(self.pos_index), 1) + max(len(self.neg_index), 1)


@TASK_UTILS.register_module()
class RandomSampler:
    """At most `num` boxes at random, `pos_fraction` of them positive if there are as many.

    The choice is drawn from torch's CPU generator whatever the device, so that a seed gives the same boxes on each.

    Args:
        num: boxes of one image.
        pos_fraction: at most this share of `num` is positive; negatives fill what positives leave.
        neg_pos_ub: at most this many negatives for each positive (for at least one); -1: no bound.
        add_gt_as_proposals: offer the ground truth boxes too.
    """

    def __init__(self, num: int, pos_fraction: float, neg_pos_ub: float = -1, add_gt_as_proposals: bool = True) -> None:
        self.num = num
        self.pos_fraction = pos_fraction
        self.neg_pos_ub = neg_pos_ub
        self.add_gt_as_proposals = add_gt_as_proposals

    def sample(self, assignment: Assignment, boxes: Tensor, gt_boxes: Tensor, gt_labels: Tensor) -> SampledRoIs:
        """Choose among `boxes` (N, 4), given their `assignment` to `gt_boxes` (G, 4) of `gt_labels` (G,)."""
        gt_index, added = assignment.gt_index, 0
        if self.add_gt_as_proposals:
            added = len(gt_boxes)
            boxes = torch.cat([gt_boxes.to(boxes.dtype), boxes])
            gt_index = torch.cat([torch.arange(1, added + 1, device=gt_index.device), gt_index])
        pos_index = _choose((gt_index > 0).nonzero().flatten(), int(self.num * self.pos_fraction))
        num_neg = self.num - len(pos_index)
        if self.neg_pos_ub >= 0:
            num_neg = min(num_neg, int(self.neg_pos_ub * max(1, len(pos_index))))
        neg_index = _choose((gt_index == 0).nonzero().flatten(), num_neg)
        return _gather(pos_index, neg_index, gt_index, boxes, gt_boxes, gt_labels, added)


@TASK_UTILS.register_module()
class PseudoSampler:
    """No choice: every assigned box."""

    def sample(self, assignment: Assignment, boxes: Tensor, gt_boxes: Tensor, gt_labels: Tensor) -> SampledRoIs:
        """All positives and negatives among `boxes` (N, 4); ground truths are not added."""
        gt_index = assignment.gt_index
        pos_index = (gt_index > 0).nonzero().flatten()
        neg_index = (gt_index == 0).nonzero().flatten()
        return _gather(pos_index, neg_index, gt_index, boxes, gt_boxes, gt_labels, added=0)


def _choose(candidates: Tensor, count: int) -> Tensor:
    """`count` of the candidates (K,) at random, or all if there are no more; in their order."""
    if len(candidates) <= count:
        return candidates
    chosen = torch.randperm(len(candidates))[:count].sort().values
    return candidates[chosen.to(candidates.device)]


def _gather(
    pos_index: Tensor,
    neg_index: Tensor,
    gt_index: Tensor,
    boxes: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    added: int,
) -> SampledRoIs:
    """What the chosen boxes are to learn; the first `added` of `boxes` are the ground truths."""
    pos_gt_index = gt_index[pos_index] - 1
    return SampledRoIs(
        pos_index=pos_index,
        neg_index=neg_index,
        pos_boxes=boxes[pos_index],
        neg_boxes=boxes[neg_index],
        pos_gt_index=pos_gt_index,
        pos_gt_boxes=gt_boxes[pos_gt_index],
        pos_gt_labels=gt_labels[pos_gt_index],
        pos_is_gt=pos_index < added,
    )
