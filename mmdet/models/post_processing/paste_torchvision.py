"""The mask paste of torchvision's detectors, for models that were trained and published with it."""
import torch
import torch.nn.functional as F
from torch import Tensor

from .rle import RLE, rle_from_crops

BORDER = 1  # cells of zeros around the probabilities


def paste_masks_torchvision_to_rle(
    probs: Tensor, boxes: Tensor, image_size: tuple[int, int], threshold: float = 0.5
) -> list[RLE]:
    """Resize each mask, with a border of zeros, to its box in whole pixels and cut it at the threshold.

    The box grows with the border about its centre, by (M + 2) / M; its corners are then truncated to integers and
    both belong to it (width x2 - x1 + 1). A pixel is object where the resized probability reaches the threshold. What
    lies outside the image is cut off.

    Args:
        probs: (K, M, M) float in 0..1, after the sigmoid.
        boxes: (K, 4) finite xyxy in pixels of the image.
        image_size: (H, W).
        threshold: a probability.

    Returns:
        K dicts `{'size': [H, W], 'counts': bytes}`, equal to `pycocotools.mask.encode` of the bitmaps.
    """
    bordered = F.pad(probs.detach().float().cpu(), (BORDER,) * 4)
    corners = _grown(boxes.detach().float().cpu(), bordered.shape[-1] / probs.shape[-1]).long().tolist()
    return rle_from_crops(
        (
            ((_resized(prob, box) >= threshold).numpy(), *box[:2])
            for prob, box in zip(bordered, corners, strict=True)
        ),
        image_size,
    )


def _grown(boxes: Tensor, factor: float) -> Tensor:
    """Boxes (K, 4) enlarged about their centres."""
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * factor
    centers = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    return torch.cat([centers - half, centers + half], dim=1)


def _resized(prob: Tensor, box: list[int]) -> Tensor:
    left, top, right, bottom = box
    size = (max(bottom - top + 1, 1), max(right - left + 1, 1))
    return F.interpolate(prob[None, None], size=size, mode='bilinear', align_corners=False)[0, 0]
