"""Boxes are plain float tensors `(..., 4)` of corners x1, y1, x2, y2 in pixels; these are the functions on them.

A box is half open, as in mmdetection 2 and later: its width is x2 - x1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

SMALLEST_UNION = 1e-6  # mmdetection's: keeps the overlap of two empty boxes at 0 instead of NaN


def box_area(boxes: Tensor) -> Tensor:
    """Areas `(...)` of boxes `(..., 4)`, in square pixels."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def box_iou(boxes1: Tensor, boxes2: Tensor, mode: str = 'iou') -> Tensor:
    """Overlap of every box with every other, not differentiable.

    Args:
        boxes1: (N, 4).
        boxes2: (M, 4).
        mode: `'iou'`, intersection over union, or `'iof'`, intersection over the area of `boxes1` ("foreground").

    Returns:
        (N, M), in 0..1; 0 where the denominator is empty.

    Raises:
        ValueError: another mode.
    """
    if mode not in ('iou', 'iof'):
        raise ValueError(f"mode must be 'iou' or 'iof', not {mode!r}")
    boxes1, boxes2 = boxes1.detach(), boxes2.detach()
    left, top, right, bottom = boxes1[:, None].unbind(-1)
    left2, top2, right2, bottom2 = boxes2.unbind(-1)
    # One (N, M) plane at a time and in place: with 250,000 anchors each plane is what counts.
    overlap = torch.min(right, right2).sub_(torch.max(left, left2)).clamp_(min=0)
    overlap *= torch.min(bottom, bottom2).sub_(torch.max(top, top2)).clamp_(min=0)
    area1 = box_area(boxes1)[:, None]
    whole = area1 if mode == 'iof' else (area1 + box_area(boxes2)).sub_(overlap)
    return overlap.div_(whole.clamp(min=SMALLEST_UNION))


def clip_boxes(boxes: Tensor, image_size: Sequence[int]) -> Tensor:
    """Boxes `(..., 4)` cut to the image: x into 0..width, y into 0..height; `image_size` is (height, width)."""
    height, width = image_size[:2]
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))


def scale_boxes(boxes: Tensor, scale_factor: Sequence[float]) -> Tensor:
    """Boxes `(..., 4)` multiplied by the factors (of x, of y)."""
    return boxes * boxes.new_tensor(tuple(scale_factor) * 2)


def flip_boxes(boxes: Tensor, image_size: Sequence[int], direction: str) -> Tensor:
    """Boxes `(..., 4)` on the mirrored image; `image_size` is (height, width), each one less for inclusive boxes.

    Args:
        boxes, image_size: see above.
        direction: `'horizontal'`, `'vertical'` or `'diagonal'`, which is both.
    """
    height, width = image_size
    x1, y1, x2, y2 = boxes.unbind(-1)
    if direction in ('horizontal', 'diagonal'):
        x1, x2 = width - x2, width - x1
    if direction in ('vertical', 'diagonal'):
        y1, y2 = height - y2, height - y1
    return torch.stack([x1, y1, x2, y2], dim=-1)


def include_last_pixel(boxes: Tensor) -> Tensor:
    """Inclusive boxes `(..., 4)`, whose width is x2 - x1 + 1 (mmdetection 1.x), as half open ones: x2 and y2 plus 1."""
    return torch.cat([boxes[..., :2], boxes[..., 2:] + 1], dim=-1)


def boxes_to_rois(boxes: Sequence[Tensor]) -> Tensor:
    """The boxes (N_i, 4) of the images of a batch as RoIs (sum of N_i, 5): index of the image, x1, y1, x2, y2."""
    image_index = [image_boxes.new_full((len(image_boxes), 1), i) for i, image_boxes in enumerate(boxes)]
    return torch.cat([torch.cat(image_index), torch.cat(list(boxes))], dim=1)
