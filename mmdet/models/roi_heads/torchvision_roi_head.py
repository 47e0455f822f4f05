"""The RoI head that detects as torchvision's detectors do."""
from torch import Tensor

from mmdet.models.post_processing import RLE, paste_masks_torchvision_to_rle
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample

from .standard_roi_head import StandardRoIHead


@MODELS.register_module()
class TorchvisionRoIHead(StandardRoIHead):
    """`StandardRoIHead` that pastes masks as torchvision does.

    It expects what the rest of such a model is made of: `TorchvisionAnchorGenerator`, `Box2BoxTransform`,
    `RoIAlign(sampling_ratio=2, aligned=False)`, and detections of at least 0.01 pixels (`min_bbox_size`).
    """

    def paste(self, probabilities: Tensor, boxes: Tensor, sample: DetDataSample) -> list[RLE]:
        """(K, M, M) masks of (K, 4) boxes, in pixels of the original image, as run-length encodings of it."""
        return paste_masks_torchvision_to_rle(probabilities, boxes, sample.ori_shape, self.test_cfg.mask_thr_binary)
