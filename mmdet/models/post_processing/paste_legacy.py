"""The mask paste of mmdetection 1.x, for models that were trained and published with it."""
import cv2
import numpy as np
from torch import Tensor

from .rle import RLE, rle_from_switches, switches_of_columns


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
    height, width = image_size
    owners, positions = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    squares = probs.detach().float().cpu().numpy()
    corners = boxes.detach().cpu().numpy().astype(np.int64).tolist()
    for k, (square, (left, top, right, bottom)) in enumerate(zip(squares, corners, strict=True)):
        size = (max(right - left + 1, 1), max(bottom - top + 1, 1))
        above = cv2.resize(square, size, interpolation=cv2.INTER_LINEAR) > threshold
        first_row, first_column = max(-top, 0), max(-left, 0)
        visible = above[first_row : max(height - top, 0), first_column : max(width - left, 0)]
        columns = left + first_column + np.arange(visible.shape[1])
        switches = switches_of_columns(visible, top + first_row, columns, height)
        owners.append(np.full_like(switches, k))
        positions.append(switches)
    return rle_from_switches(np.concatenate(owners), np.concatenate(positions), len(probs), image_size)
