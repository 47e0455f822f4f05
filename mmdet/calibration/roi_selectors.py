"""Which of the frozen detector's RoIs a calibration step learns from."""
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmengine.dist import all_gather, get_world_size
from torch import Tensor

from mmdet.models.task_modules import SampledRoIs
from mmdet.registry import ROI_SELECTORS


@dataclass(frozen=True)
class SelectedRoIs:
    """What is kept of one step, on this rank.

    Attributes:
        boxes: for each image (R_i, 4) in pixels of the network input.
        labels: (sum of R_i,) int64, image by image; C for background.
        num_rois_of_step: RoIs kept by all ranks together.
    """

    boxes: list[Tensor]
    labels: Tensor
    num_rois_of_step: int


@ROI_SELECTORS.register_module()
class DrawnClassSelector:
    """SimCal's bi-level choice: an image speaks only for the class it was drawn for.

    Kept are the positive RoIs whose label is their image's drawn class, and, from all images of the step at
    random, as many background RoIs. The step is that of all ranks: each background RoI carries a random
    priority from its own image's stream, and the highest of the whole step are kept, so that the choice
    is the same however many ranks share the step.
    """

    def select(
        self,
        sampled: Sequence[SampledRoIs],
        drawn_classes: Sequence[int],
        priorities: Sequence[Tensor],
        num_classes: int,
    ) -> SelectedRoIs:
        """Choose among the sampled RoIs of this rank's images.

        Args:
            sampled: the RoIs of each image.
            drawn_classes: the label each image was drawn for.
            priorities: for each image, a uniform random number for each of its negative RoIs.
            num_classes: C, the label of background.
        """
        positives = [
            rois.pos_boxes[rois.pos_gt_labels == drawn] for rois, drawn in zip(sampled, drawn_classes, strict=True)
        ]
        num_positives = sum(len(boxes) for boxes in positives)
        num_of_step, lowest_kept = _highest_of_step(torch.cat(list(priorities)), num_positives)
        boxes, labels = [], []
        for rois, kept, drawn, priority in zip(sampled, positives, drawn_classes, priorities, strict=True):
            background = rois.neg_boxes[(priority >= lowest_kept).to(rois.neg_boxes.device)]
            boxes.append(torch.cat([kept, background]))
            labels.append(torch.tensor([drawn] * len(kept) + [num_classes] * len(background), dtype=torch.int64))
        return SelectedRoIs(boxes, torch.cat(labels).to(boxes[0].device), num_of_step)


def _highest_of_step(priorities: Tensor, num_positives: int) -> tuple[int, float]:
    """How many RoIs all ranks keep together, and the lowest background priority among them.

    Args:
        priorities: (N,) of this rank's background RoIs.
        num_positives: of this rank.
    """
    if get_world_size() > 1:
        counts = torch.stack(all_gather(torch.tensor([num_positives, len(priorities)])))
        num_positives, widest = int(counts[:, 0].sum()), int(counts[:, 1].max())
        padded = torch.nn.functional.pad(priorities, (0, widest - len(priorities)), value=-1.0)
        gathered = all_gather(padded)
        priorities = torch.cat([of_rank[: counts[rank, 1]] for rank, of_rank in enumerate(gathered)])
    num_background = min(num_positives, len(priorities))
    if num_background == 0:
        return num_positives, float('inf')
    return num_positives + num_background, float(priorities.topk(num_background).values[-1])
