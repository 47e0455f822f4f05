"""RoI heads that detect as mmdetection 1.x did, for models that were trained and published with it.

They expect what the rest of such a model is made of: `LegacyAnchorGenerator`, `LegacyDeltaXYWHBBoxCoder`,
`LegacySingleRoIExtractor`, `LegacyRoIAlign`, and suppression with `offset=1`.
"""
from collections.abc import Sequence

from torch import Tensor

from mmdet.models.layers.precision import at_least_float32
from mmdet.models.post_processing import RLE, BoxesOf, paste_masks_legacy_to_rle
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.boxes import scale_boxes

from .base_roi_head import to_original_size
from .cascade_roi_head import CascadeRoIHead
from .htc_roi_head import HybridTaskCascadeRoIHead, SemanticPyramid
from .standard_roi_head import StandardRoIHead


class LegacyDetection:
    """Boxes are suppressed, and masks pasted, in pixels of the original image.

    Where a box's last pixel is part of it, its overlap with another depends on the pixels' size. Masks are resized to
    boxes of whole pixels. Detected boxes are inclusive: their width is x2 - x1 + 1.
    """

    last_pixel = 1

    def _suppress(
        self, boxes_of: BoxesOf, scores: Tensor, sample: DetDataSample
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        def original_boxes_of(roi_index: Tensor, labels: Tensor) -> Tensor:
            return to_original_size(boxes_of(roi_index, labels), sample)

        boxes, *kept = super()._suppress(original_boxes_of, scores, sample)
        return scale_boxes(boxes, sample.scale_factor), *kept

    def paste(self, probabilities: Tensor, boxes: Tensor, sample: DetDataSample) -> list[RLE]:
        """(K, M, M) masks of (K, 4) boxes, in pixels of the original image, as run-length encodings of it."""
        return paste_masks_legacy_to_rle(probabilities, boxes, sample.ori_shape, self.test_cfg.mask_thr_binary)


@MODELS.register_module()
class LegacyStandardRoIHead(LegacyDetection, StandardRoIHead):
    """`StandardRoIHead` of mmdetection 1.x."""


@MODELS.register_module()
class LegacyCascadeRoIHead(LegacyDetection, CascadeRoIHead):
    """`CascadeRoIHead` of mmdetection 1.x."""


@MODELS.register_module()
class LegacyHybridTaskCascadeRoIHead(LegacyDetection, HybridTaskCascadeRoIHead):
    """`HybridTaskCascadeRoIHead` of mmdetection 1.x, which pastes the mean of all stages' masks."""

    def mask_probabilities(self, feats: Sequence[Tensor] | SemanticPyramid, rois: Tensor, labels: Tensor) -> Tensor:
        """(K, 5) detected boxes and (K,) classes -> (K, M, M) in [0, 1], the mean of all stages'."""
        roi_feats = self.mask_feats(feats, rois, self.num_stages - 1)
        previous, total = None, 0.0
        for head in self.mask_head:
            hidden = head.hidden(roi_feats, previous)
            total = total + at_least_float32(head.predict(hidden, labels)).sigmoid()
            previous = hidden if self.mask_info_flow else None
        return total / self.num_stages
