"""Which of the frozen detector's RoIs a calibration step learns from."""
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmengine.dist import all_gather, get_world_size
from torch import Tensor

from mmdet.registry import ROI_SELECTORS


@dataclass(frozen=True)
class SelectedRoIs:
    """What is kept of one step, on this rank.

    Attributes:
        positives: for each image (P_i,) bool, which of its positive RoIs.
        backgrounds: for each image (Q_i,) bool, which of its background RoIs.
        labels: (R,) int64, image by image, the positives before the background; C for background.
        num_rois_of_step: RoIs kept by all ranks together.
    """

    positives: list[Tensor]
    backgrounds: list[Tensor]
    labels: Tensor
    num_rois_of_step: int

    def of(self, positives: Sequence[Tensor], backgrounds: Sequence[Tensor]) -> list[Tensor]:
        """For each image what belongs to its kept RoIs, in the order of `labels`.

        Args:
            positives: for each image (P_i, ...) something of its positive RoIs.
            backgrounds: for each image (Q_i, ...) the same of its background RoIs.
        """
        images = zip(positives, self.positives, backgrounds, self.backgrounds, strict=True)
        return [
            torch.cat([of_pos[pos.to(of_pos.device)], of_neg[neg.to(of_neg.device)]])
            for of_pos, pos, of_neg, neg in images
        ]


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
        pos_labels: Sequence[Tensor],
        drawn_classes: Sequence[int],
        priorities: Sequence[Tensor],
        num_classes: int,
    ) -> SelectedRoIs:
        """Choose among the sampled RoIs of this rank's images.

        Args:
            pos_labels: for each image (P_i,) int64, the labels of its positive RoIs.
            drawn_classes: the label each image was drawn for.
            priorities: for each image (Q_i,), a uniform random number for each of its background RoIs.
            num_classes: C, the label of background.
        """
        positives = [labels == drawn for labels, drawn in zip(pos_labels, drawn_classes, strict=True)]
        num_positives = [int(kept.sum()) for kept in positives]
        num_of_step, lowest_kept = _highest_of_step(torch.cat(list(priorities)), sum(num_positives))
        backgrounds = [of_image >= lowest_kept for of_image in priorities]
        labels = []
        for drawn, num_of_image, background in zip(drawn_classes, num_positives, backgrounds, strict=True):
            labels += [drawn] * num_of_image + [num_classes] * int(background.sum())
        labels = torch.tensor(labels, dtype=torch.int64, device=pos_labels[0].device)
        return SelectedRoIs(positives, backgrounds, labels, num_of_step)


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
