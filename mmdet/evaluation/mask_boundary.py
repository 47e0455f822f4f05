"""The boundary of a mask: the pixels near its contour, for boundary IoU.

Paper: Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021.
"""
from typing import Any

import cv2
import numpy as np
from hotcoco import mask as rle

DILATION_RATIO = 0.02
_SQUARE = np.ones((3, 3), np.uint8)


def mask_boundary(mask: dict[str, Any]) -> dict[str, Any]:
    """The part of a mask that is near its contour, where the image's edge counts as contour.

    It is as wide as 2 % of the image's diagonal, rounded to pixels, and at least 1.

    Args:
        mask: a COCO run-length encoding.

    Returns:
        A COCO run-length encoding.
    """
    height, width = mask['size']
    boundary_width = max(1, round(DILATION_RATIO * float(np.hypot(height, width))))
    x, y, w, h = (int(side) for side in rle.toBbox(mask))
    pixels = rle.decode(mask)
    # What is eroded is as large as the mask, not the image: outside its box there is nothing.
    inside = np.zeros((h + 2, w + 2), np.uint8)
    inside[1:-1, 1:-1] = pixels[y : y + h, x : x + w]
    eroded = cv2.erode(inside, _SQUARE, iterations=boundary_width)
    boundary = np.zeros_like(pixels)
    boundary[y : y + h, x : x + w] = (inside - eroded)[1:-1, 1:-1]
    return rle.encode(boundary)
