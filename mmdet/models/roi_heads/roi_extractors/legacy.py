"""RoI features as mmdetection 1.x took them: inclusive RoIs, and no half-pixel shift."""
from collections.abc import Sequence

import torch
from torch import Tensor

from mmdet.registry import MODELS
from mmdet.structures.boxes import include_last_pixel

from .roi_align import RoIAlign
from .single_level_roi_extractor import SingleRoIExtractor


@MODELS.register_module()
class LegacyRoIAlign(RoIAlign):
    """RoIAlign of mmdetection 1.x: pixel centres lie at whole numbers, and a RoI may be as small as it likes.

    torchvision's `aligned=False` has the first, but no cell of it is smaller than a pixel of the feature map.

    Args:
        output_size, spatial_scale, sampling_ratio: as of `RoIAlign`.
    """

    def __init__(self, output_size: int, spatial_scale: float = 1.0, sampling_ratio: int = 0):
        super().__init__(output_size, spatial_scale, sampling_ratio, aligned=True)

    def forward(self, feats: Tensor, rois: Tensor) -> Tensor:
        """(B, D, H, W) features and (R, 5) RoIs `(image, x1, y1, x2, y2)` in input pixels -> (R, D, S, S)."""
        half_a_cell = rois.new_tensor([0.0, 0.5, 0.5, 0.5, 0.5]) / self.spatial_scale
        return super().forward(feats, rois + half_a_cell)


@MODELS.register_module()
class LegacySingleRoIExtractor(SingleRoIExtractor):
    """Takes inclusive RoIs (width x2 - x1 + 1), whose last pixel counts for the level and for what is pooled."""

    def forward(self, feats: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Pyramid of (B, D, H_l, W_l) and (R, 5) inclusive RoIs in input pixels -> (R, D, S, S)."""
        return super().forward(feats, torch.cat([rois[:, :1], include_last_pixel(rois[:, 1:])], dim=1))
