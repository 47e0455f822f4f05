"""Resizing as torchvision's detectors resize their input, before the network."""
import numpy as np
import torch
import torch.nn.functional as F

from mmdet.registry import TRANSFORMS

from .geometry import Resize, Scale


@TRANSFORMS.register_module()
class TorchvisionResize(Resize):
    """Resize like torchvision's `GeneralizedRCNNTransform`: shorter side to one length, unless the longer is too long.

    Sides are rounded down. The image becomes float32 and is interpolated bilinearly without rounding its values.
    torchvision normalises it before; the two commute.

    Args:
        min_size: of the shorter side, in pixels.
        max_size: at most of the longer side, in pixels.
        clip_object_border: clip boxes to the image.
    """

    def __init__(self, min_size: int = 800, max_size: int = 1333, clip_object_border: bool = True):
        super().__init__(scale=(max_size, min_size), clip_object_border=clip_object_border)
        self.min_size = min_size
        self.max_size = max_size

    def transform(self, results: dict) -> dict:
        """Resize one image."""
        height, width = results['img'].shape[:2]
        factor = min(self.min_size / min(height, width), self.max_size / max(height, width))
        return self.resize(results, (int(width * factor), int(height * factor)))

    def resize_image(self, img: np.ndarray, size: Scale) -> np.ndarray:
        """The image (H, W, 3) at another (width, height), float32."""
        channels = torch.from_numpy(np.ascontiguousarray(img)).permute(2, 0, 1).float()
        resized = F.interpolate(channels[None], size=size[::-1], mode='bilinear', align_corners=False)[0]
        return resized.permute(1, 2, 0).numpy()
