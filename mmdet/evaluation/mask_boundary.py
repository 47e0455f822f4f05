"""The boundary of a mask: the pixels near its contour, for boundary IoU.

Paper: Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021.
"""
from typing import Any

import cv2
import numpy as np
from hotcoco import mask as rle

DILATION_RATIO = 0.02
_SQUARE = np.ones((3, 3), np.uint8)


def mask_boundary(mask: dict[str, Any], dilation_ratio: float = DILATION_RATIO) -> dict[str, Any]:
    """The part of a mask that is near its contour; the image's edge counts as contour.

    Args:
        mask: a COCO run-length encoding.
        dilation_ratio: the boundary's width as a share of the image's diagonal; it is rounded to pixels, at least 1.

    Returns:
        A COCO run-length encoding.
    """
    height, width = mask['size']
    boundary_width = max(1, round(dilation_ratio * float(np.hypot(height, width))))
    x, y, w, h = (int(side) for side in rle.toBbox(mask))
    pixels = rle.decode(mask)
    # What is eroded is as large as the mask, not the image: outside its box there is nothing.
    inside = np.zeros((h + 2, w + 2), np.uint8)
    inside[1:-1, 1:-1] = pixels[y : y + h, x : x + w]
    eroded = cv2.erode(inside, _SQUARE, iterations=boundary_width)
    boundary = np.zeros_like(pixels)
    boundary[y : y + h, x : x + w] = (inside - eroded)[1:-1, 1:-1]
    return rle.encode(boundary)
