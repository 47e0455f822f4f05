"""RoI features from the one pyramid level that fits the RoI's size (FPN, arXiv 1612.03144, eq. 1)."""
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmdet.registry import MODELS


@MODELS.register_module()
class SingleRoIExtractor(nn.Module):
    """Takes every RoI's features from a single pyramid level.

    A RoI of scale `sqrt(w * h)` belongs to level 0 up to `2 * finest_scale`, to level 1 up to twice that, and so on.

    Args:
        roi_layer: config of the pooling layer, without its `spatial_scale`.
        out_channels: channels D of every level.
        featmap_strides: input pixels per feature map pixel, level by level.
        finest_scale: in input pixels.
    """

    def __init__(self, roi_layer: dict, out_channels: int, featmap_strides: Sequence[int], finest_scale: int = 56):
        super().__init__()
        self.out_channels = out_channels
        self.featmap_strides = tuple(featmap_strides)
        self.finest_scale = finest_scale
        self.roi_layers = nn.ModuleList(
            MODELS.build(dict(roi_layer, spatial_scale=1 / stride)) for stride in featmap_strides
        )

    @property
    def num_inputs(self) -> int:
        """Pyramid levels read; further levels of the neck serve the RPN alone."""
        return len(self.featmap_strides)

    def levels_of(self, rois: Tensor) -> Tensor:
        """(R, 5) RoIs -> (R,) int64 pyramid levels."""
        scale = torch.sqrt((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2]))
        level = torch.floor(torch.log2(scale / self.finest_scale + 1e-6))
        return level.clamp(min=0, max=self.num_inputs - 1).long()

    def forward(self, feats: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Pyramid of (B, D, H_l, W_l) and (R, 5) RoIs in input pixels -> (R, D, S, S)."""
        if self.num_inputs == 1:
            return self.roi_layers[0](feats[0], rois)
        size = self.roi_layers[0].output_size
        pooled = feats[0].new_zeros(len(rois), self.out_channels, size, size)
        if feats[0].is_contiguous(memory_format=torch.channels_last):
            pooled = pooled.contiguous(memory_format=torch.channels_last)
        levels = self.levels_of(rois)
        for level, roi_layer in enumerate(self.roi_layers):
            members = (levels == level).nonzero().squeeze(1)
            if len(members):
                pooled[members] = roi_layer(feats[level], rois[members])
        return pooled
