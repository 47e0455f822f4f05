"""The mask paste of mmdetection 1.x, for models that were trained and published with it."""
import cv2
import numpy as np
from torch import Tensor

from .rle import RLE, rle_from_crops


def paste_masks_legacy_to_rle(
    probs: Tensor, boxes: Tensor, image_size: tuple[int, int], threshold: float = 0.5
) -> list[RLE]:
    """Resize each mask to its box in whole pixels and cut it at the threshold, as mmdetection 1.0rc0 did.

    A box's corners are truncated to integers and both belong to it (width x2 - x1 + 1, at least 1). The
    probabilities are resized by OpenCV's bilinear `resize`, which repeats the border instead of fading
    to zero, and a pixel is object where they are *above* the threshold. What lies outside the image
    is cut off.

    Args:
        probs: (K, M, M) float in 0..1, after the sigmoid.
        boxes: (K, 4) finite inclusive xyxy in pixels of the image.
        image_size: (H, W).
        threshold: a probability.

    Returns:
        K dicts `{'size': [H, W], 'counts': bytes}`, equal to `pycocotools.mask.encode` of the bitmaps.
    """
    squares = probs.detach().float().cpu().numpy()
    corners = boxes.detach().cpu().numpy().astype(np.int64).tolist()
    return rle_from_crops(
        ((_resized(square, box) > threshold, *box[:2]) for square, box in zip(squares, corners, strict=True)),
        image_size,
    )


def _resized(square: np.ndarray, box: list[int]) -> np.ndarray:
    left, top, right, bottom = box
    size = (max(right - left + 1, 1), max(bottom - top + 1, 1))
    return cv2.resize(square, size, interpolation=cv2.INTER_LINEAR)
