"""Which ground truth each box is to find, by overlap."""
from typing import NamedTuple

import torch
from torch import Tensor

from mmdet.registry import TASK_UTILS
from mmdet.structures.boxes import box_iou

OVERLAPS_AT_ONCE = 2**21  # float32: planes of 8 MB


class Assignment(NamedTuple):
    """What each of N boxes is to learn.

    Attributes:
        gt_index: (N,) int64; -1: nothing, 0: background, g + 1: ground truth g.
        max_overlap: (N,) float, with the ground truth it overlaps most; -1 in an ignored region.
        labels: (N,) int64, the label of the assigned ground truth; -1 for those without.
    """

    gt_index: Tensor
    max_overlap: Tensor
    labels: Tensor


@TASK_UTILS.register_module()
class MaxIoUAssigner:
    """Each box takes the ground truth it overlaps most; each ground truth also the box that overlaps it most.

    In this order, the later rule wins:

    1. a box whose largest IoU is below `neg_iou_thr` is background;
    2. a box whose largest IoU is at least `pos_iou_thr` takes that ground truth;
    3. with `match_low_quality`, every ground truth takes the box with the largest IoU it has with any (all that tie,
       with `gt_max_assign_all`), if that is at least `min_pos_iou`. Where two want the same box, the later has it.

    Args:
        pos_iou_thr, min_pos_iou: see above.
        neg_iou_thr: see above; or (low, high): a box below low learns nothing.
        gt_max_assign_all: see above.
        ignore_iof_thr: a box of which more than this fraction lies in an ignored region learns nothing; a negative
            number lets it be background.
        ignore_wrt_candidates: that fraction is of the box; else of the ignored region.
        match_low_quality: apply rule 3.
        gpu_assign_thr: accepted for mmdetection's configs, where more ground truths than this are matched on the CPU.
            It has no effect: a few ground truths are compared at a time, so that memory does not grow with them.
    """

    def __init__(
        self,
        pos_iou_thr: float,
        neg_iou_thr: float | tuple[float, float],
        min_pos_iou: float = 0.0,
        gt_max_assign_all: bool = True,
        ignore_iof_thr: float = -1,
        ignore_wrt_candidates: bool = True,
        match_low_quality: bool = True,
        gpu_assign_thr: float = -1,
    ) -> None:
        self.pos_iou_thr = pos_iou_thr
        self.background_iou = (0.0, neg_iou_thr) if isinstance(neg_iou_thr, (int, float)) else tuple(neg_iou_thr)
        self.min_pos_iou = min_pos_iou
        self.gt_max_assign_all = gt_max_assign_all
        self.ignore_iof_thr = ignore_iof_thr
        self.ignore_wrt_candidates = ignore_wrt_candidates
        self.match_low_quality = match_low_quality

    def assign(
        self, boxes: Tensor, gt_boxes: Tensor, gt_labels: Tensor, ignored_boxes: Tensor | None = None
    ) -> Assignment:
        """Match `boxes` (N, 4) with `gt_boxes` (G, 4) of `gt_labels` (G,), all xyxy in the same pixels.

        `ignored_boxes` (I, 4) are regions such as crowds. Without ground truth every box is background.
        """
        if len(boxes) == 0 or len(gt_boxes) == 0:
            background = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
            return Assignment(background, boxes.new_zeros(len(boxes)), background - 1)

        max_overlap, nearest, low_quality = self._match(boxes, gt_boxes, self._ignored(boxes, ignored_boxes))
        low, high = self.background_iou
        gt_index = torch.full_like(nearest, -1)
        gt_index[(max_overlap >= low) & (max_overlap < high)] = 0
        gt_index = torch.where(max_overlap >= self.pos_iou_thr, nearest + 1, gt_index)
        gt_index = torch.where(low_quality > 0, low_quality, gt_index)
        labels = torch.where(gt_index > 0, gt_labels[(gt_index - 1).clamp(min=0)], -1)
        return Assignment(gt_index, max_overlap, labels)

    def _ignored(self, boxes: Tensor, ignored_boxes: Tensor | None) -> Tensor | None:
        """Whether each box lies in an ignored region (N,), or None where that is of no concern."""
        if self.ignore_iof_thr <= 0 or ignored_boxes is None or len(ignored_boxes) == 0:
            return None
        if self.ignore_wrt_candidates:
            return box_iou(boxes, ignored_boxes, mode='iof').amax(dim=1) > self.ignore_iof_thr
        return box_iou(ignored_boxes, boxes, mode='iof').amax(dim=0) > self.ignore_iof_thr

    def _match(self, boxes: Tensor, gt_boxes: Tensor, ignored: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Each box's largest overlap, with which ground truth, and which one (1-based, 0: none) takes it by rule 3."""
        max_overlap = boxes.new_full((len(boxes),), -torch.inf)
        nearest = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        low_quality = torch.zeros_like(nearest)
        step = max(1, OVERLAPS_AT_ONCE // len(boxes))
        for first in range(0, len(gt_boxes), step):
            overlaps = box_iou(gt_boxes[first : first + step], boxes)
            if ignored is not None:
                overlaps[:, ignored] = -1
            largest, index = overlaps.max(dim=0)
            better = largest > max_overlap
            max_overlap = torch.where(better, largest, max_overlap)
            nearest = torch.where(better, index + first, nearest)
            if self.match_low_quality:
                gt, box = self._best_boxes_of(overlaps)
                low_quality.scatter_reduce_(0, box, gt + first + 1, 'amax')
        return max_overlap, nearest, low_quality

    def _best_boxes_of(self, overlaps: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs (ground truth, box) of rule 3, from the overlaps (G, N)."""
        largest, box = overlaps.max(dim=1)
        good = largest >= self.min_pos_iou
        if self.gt_max_assign_all:
            return ((overlaps == largest[:, None]) & good[:, None]).nonzero(as_tuple=True)
        gt = good.nonzero().flatten()
        return gt, box[gt]
