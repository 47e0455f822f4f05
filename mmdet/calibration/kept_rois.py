"""What is kept of a view for later visits: RoI features of half precision, and what a step selects RoIs by."""
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmdet.errors import ConfigError
from mmdet.models.task_modules import SampledRoIs
from mmdet.structures.boxes import boxes_to_rois

from .views import Visit


@dataclass(frozen=True)
class KeptRoIs:
    """RoIs of one stage of one view: all positives of K RoI draws, and some of the background of the first.

    Attributes:
        feats: (U + B, D, S, S) float16, the box head's input: U distinct positives, then B background RoIs.
        labels: (U,) int64 of the positives.
        draws: for each of K RoI draws (P_k,) int64, which of the positives it has.
        priorities: (B,) float32, the background RoIs' priorities in the first draw, the highest among its Q.
        num_backgrounds: Q, background RoIs of the first draw.
    """

    feats: Tensor
    labels: Tensor
    draws: list[Tensor]
    priorities: Tensor
    num_backgrounds: int

    def background_rows(self) -> Tensor:
        """(B,) int64, where the background RoIs are in `feats`."""
        return torch.arange(len(self.labels), len(self.feats))

    def num_bytes(self) -> int:
        """What they occupy."""
        return sum(tensor.nbytes for tensor in (self.feats, self.labels, *self.draws, self.priorities))


def rois_of_visit(visit: Visit, stages: Sequence[KeptRoIs]) -> list[tuple[Tensor, Tensor]]:
    """A visit's own RoI draw from what is kept of its view.

    The first visit has the view's first draw and its priorities. Every other has one of the K draws and, because the
    highest of Q random numbers fall on any background RoIs alike, the B highest of Q new ones in random order.

    Returns:
        For each stage (P,) int64 rows of the positives and (B,) float32 priorities of the background.
    """
    if visit.is_first:
        return [(rois.draws[0], rois.priorities) for rois in stages]
    with visit.own_choices():
        draw = int(torch.randint(len(stages[0].draws), ()))
        return [(rois.draws[draw], _highest_of(rois.num_backgrounds, len(rois.priorities))) for rois in stages]


def _highest_of(count: int, kept: int) -> Tensor:
    """(kept,) the highest of `count` uniform random numbers, in random order."""
    return torch.rand(count).topk(kept).values[torch.randperm(kept)]


def keep_rois(
    draws: Sequence[Sequence[tuple[Sequence[SampledRoIs], Sequence[Tensor]]]],
    most_backgrounds: int,
    box_feats: Callable[[Tensor, int], Tensor],
) -> list[list[KeptRoIs]]:
    """What to keep of the RoIs drawn on a batch of images.

    Args:
        draws: for each of K RoI draws, for each stage, the images' RoIs and background priorities.
        most_backgrounds: of a stage of an image.
        box_feats: ((R, 5) RoIs, stage) -> (R, D, S, S).

    Returns:
        For each image, for each stage.

    Raises:
        ConfigError: features that float16 cannot hold.
    """
    stages = [
        _keep_stage(of_stage, most_backgrounds, lambda rois, stage=stage: box_feats(rois, stage))
        for stage, of_stage in enumerate(zip(*draws, strict=True))
    ]
    return [list(of_image) for of_image in zip(*stages, strict=True)]


def _keep_stage(
    draws: Sequence[tuple[Sequence[SampledRoIs], Sequence[Tensor]]],
    most_backgrounds: int,
    box_feats: Callable[[Tensor], Tensor],
) -> list[KeptRoIs]:
    """One stage of every image."""
    images, boxes = [], []
    first_draw, priorities_of_images = draws[0]
    for image, (first, priorities) in enumerate(zip(first_draw, priorities_of_images, strict=True)):
        of_draws = [sampled[image] for sampled, _ in draws]
        positives, rows = _distinct_positives(of_draws)
        highest = priorities.topk(min(most_backgrounds, len(priorities))).indices.sort().values
        backgrounds = first.neg_boxes[highest.to(first.neg_boxes.device)]
        boxes.append(torch.cat([positives[:, :4].to(backgrounds.dtype), backgrounds]))
        images.append((positives[:, 4].long().cpu(), rows, priorities[highest], len(priorities)))
    feats = box_feats(boxes_to_rois(boxes))
    if feats.numel() and not feats.abs().max() < torch.finfo(torch.half).max:
        raise ConfigError('calibration.feature_bank: RoI features exceed float16; calibrate this base without a bank')
    parts = feats.half().cpu().split([len(of_image) for of_image in boxes])
    return [KeptRoIs(part, *of_image) for part, of_image in zip(parts, images, strict=True)]


def _distinct_positives(draws: Sequence[SampledRoIs]) -> tuple[Tensor, list[Tensor]]:
    """The distinct positives (U, 5), box and label, of several draws, and for each draw (P,) which it has."""
    positives = torch.cat([torch.cat([rois.pos_boxes.float(), rois.pos_gt_labels[:, None]], dim=1) for rois in draws])
    distinct, rows = positives.unique(dim=0, return_inverse=True)
    return distinct, list(rows.cpu().split([len(rois.pos_gt_labels) for rois in draws]))
