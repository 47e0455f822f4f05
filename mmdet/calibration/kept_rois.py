"""What is kept of a view for later visits: features of half precision, and what a step selects RoIs by."""
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmdet.errors import ConfigError
from mmdet.models.task_modules import SampledRoIs
from mmdet.structures.boxes import boxes_to_rois

from .views import Visit

FEATURES = ('roi_feats', 'class_feats')
"""What can be kept of a RoI, see `RoIOutputs`: the box head's input, or that of its last layer."""


@dataclass(frozen=True)
class KeptRoIs:
    """RoIs of one stage of one view: all positives of K RoI draws, and some of the background of the first.

    Attributes:
        feats: for one or both of `FEATURES` a float16 tensor: of U distinct positives, then of background RoIs, of
            which different features may have different numbers B.
        labels: (U,) int64 of the positives.
        draws: for each of K RoI draws (P_k,) int64, which of the positives it has.
        priorities: (most B,) float32, the background RoIs' priorities in the first draw; for each kind of features its
            B RoIs have the highest among Q.
        num_backgrounds: Q, background RoIs of the first draw.
    """

    feats: Mapping[str, Tensor]
    labels: Tensor
    draws: list[Tensor]
    priorities: Tensor
    num_backgrounds: int

    def background_rows(self, kind: str) -> Tensor:
        """(B,) int64, where the background RoIs are in `feats[kind]`."""
        return torch.arange(len(self.labels), len(self.feats[kind]))

    def num_bytes(self) -> int:
        """What the features occupy."""
        return sum(tensor.nbytes for tensor in self.feats.values())


def rois_of_visit(visit: Visit, stages: Sequence[KeptRoIs], kind: str) -> list[tuple[Tensor, Tensor]]:
    """A visit's own RoI draw from what is kept of its view.

    The first visit has the view's first draw and its priorities. Every other has one of the K draws and, because the
    highest of Q random numbers fall on any background RoIs alike, the B highest of Q new ones in random order.

    Args:
        visit: see `Visit`.
        stages: what is kept of its view.
        kind: of features, one of `FEATURES`.

    Returns:
        For each stage (P,) int64 rows of the positives and (B,) float32 priorities of the background.
    """
    backgrounds = [len(rois.feats[kind]) - len(rois.labels) for rois in stages]
    if visit.is_first:
        return [(rois.draws[0], rois.priorities[:kept]) for rois, kept in zip(stages, backgrounds, strict=True)]
    with visit.own_choices():
        draw = int(torch.randint(len(stages[0].draws), ()))
        return [
            (rois.draws[draw], _highest_of(rois.num_backgrounds, kept))
            for rois, kept in zip(stages, backgrounds, strict=True)
        ]


def _highest_of(count: int, kept: int) -> Tensor:
    """(kept,) the highest of `count` uniform random numbers, in random order."""
    return torch.rand(count).topk(kept).values[torch.randperm(kept)]


def keep_rois(
    draws: Sequence[Sequence[tuple[Sequence[SampledRoIs], Sequence[Tensor]]]],
    most_backgrounds: Sequence[Mapping[str, int]],
    features: Callable[[str, Tensor, int], Tensor],
) -> list[list[KeptRoIs]]:
    """What to keep of the RoIs drawn on a batch of images.

    Args:
        draws: for each of K RoI draws, for each stage, the images' RoIs and background priorities.
        most_backgrounds: for each stage the kinds of features to keep, and for how many background RoIs of an image.
        features: (kind, (R, 5) RoIs, stage) -> (R, ...).

    Returns:
        For each image, for each stage.

    Raises:
        ConfigError: features that float16 cannot hold.
    """
    stages = [
        _keep_stage(of_stage, most_backgrounds[stage], lambda kind, rois, stage=stage: features(kind, rois, stage))
        for stage, of_stage in enumerate(zip(*draws, strict=True))
    ]
    return [list(of_image) for of_image in zip(*stages, strict=True)]


def _keep_stage(
    draws: Sequence[tuple[Sequence[SampledRoIs], Sequence[Tensor]]],
    most_backgrounds: Mapping[str, int],
    features: Callable[[str, Tensor], Tensor],
) -> list[KeptRoIs]:
    """One stage of every image."""
    images = []
    boxes: dict[str, list[Tensor]] = {kind: [] for kind in most_backgrounds}
    first_draw, priorities_of_images = draws[0]
    for image, (first, priorities) in enumerate(zip(first_draw, priorities_of_images, strict=True)):
        of_draws = [sampled[image] for sampled, _ in draws]
        positives, rows = _distinct_positives(of_draws)
        backgrounds = _by_priority(priorities, sorted(set(most_backgrounds.values())))
        for kind, most in most_backgrounds.items():
            kept = first.neg_boxes[backgrounds[:most].to(first.neg_boxes.device)]
            boxes[kind].append(torch.cat([positives[:, :4].to(kept.dtype), kept]))
        images.append((positives[:, 4].long().cpu(), rows, priorities[backgrounds], len(priorities)))
    parts = {kind: _half(features(kind, boxes_to_rois(of_kind)), of_kind) for kind, of_kind in boxes.items()}
    return [
        KeptRoIs({kind: of_kind[number] for kind, of_kind in parts.items()}, *of_image)
        for number, of_image in enumerate(images)
    ]


def _by_priority(priorities: Tensor, numbers: Sequence[int]) -> Tensor:
    """Which background RoIs to keep, so that the first n of them are, for each n, the n of the highest priority.

    Those that come in with the same n stay in their order.

    Args:
        priorities: (Q,).
        numbers: ascending.
    """
    falling = priorities.topk(min(numbers[-1], len(priorities))).indices
    bounds = [0, *numbers]
    return torch.cat([falling[low:high].sort().values for low, high in zip(bounds, numbers, strict=False)])


def _half(feats: Tensor, images: Sequence[Tensor]) -> Sequence[Tensor]:
    """Features (R, ...) as float16 on the CPU, image by image."""
    if feats.numel() and not feats.abs().max() < torch.finfo(torch.half).max:
        raise ConfigError('calibration.feature_bank: RoI features exceed float16; calibrate this base without a bank')
    return feats.half().cpu().split([len(of_image) for of_image in images])


def _distinct_positives(draws: Sequence[SampledRoIs]) -> tuple[Tensor, list[Tensor]]:
    """The distinct positives (U, 5), box and label, of several draws, and for each draw (P,) which it has."""
    positives = torch.cat([torch.cat([rois.pos_boxes.float(), rois.pos_gt_labels[:, None]], dim=1) for rois in draws])
    distinct, rows = positives.unique(dim=0, return_inverse=True)
    return distinct, list(rows.cpu().split([len(rois.pos_gt_labels) for rois in draws]))
