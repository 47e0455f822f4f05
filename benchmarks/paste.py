"""Masks to run lengths: `paste_masks_to_rle` against pasting them on the image and encoding that.

    python benchmarks/paste.py

300 masks of a 640 x 480 image. Peers are torchvision's `paste_masks_in_image`, which rounds boxes to whole pixels, and
the grid-sample paste of mmdetection 3 and detectron2, whose pixels ours are. Both are followed by
`pycocotools.mask.encode`. Memory is what one run adds to the peak of a fresh process. Half a minute.
"""
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from common import added_megabytes, machine, milliseconds, paired, print_table
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from mmdet.models.post_processing import paste_masks, paste_masks_to_rle, rle_to_bitmaps

MASKS, SIZE, HEIGHT, WIDTH = 300, 28, 480, 640


def main() -> None:
    contenders = {
        'torchvision paste + encode': torchvision_paste,
        'grid-sample paste + encode': grid_sample_paste,
        'ours': ours,
    }
    memory = [added_megabytes(predictions, run) for run in contenders.values()]
    probs, boxes = predictions()
    seconds, rles = paired(*(partial(run, probs, boxes) for run in contenders.values()))
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1).sum() / 1e6
    print(f'{MASKS} masks of {SIZE} x {SIZE} on {WIDTH} x {HEIGHT} pixels, boxes of {area:.1f} million. {machine()}')
    print_table(
        ['', 'time', 'ratio to ours', 'MB', 'masks equal to ours', 'IoU with ours, mean (least)'],
        [
            [name, milliseconds(time), f'{time / seconds[-1]:.3g} x', f'{megabytes:.0f}', *agreement(masks, rles[-1])]
            for name, time, megabytes, masks in zip(contenders, seconds, memory, rles, strict=True)
        ],
    )


def predictions(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Smooth shapes (K, M, M) and boxes of 16 to 400 pixels a side, cut at the image."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.tensor([WIDTH, HEIGHT])
    centre = torch.rand(MASKS, 2, generator=generator) * image
    half = torch.exp(2.8 + 3.2 * torch.rand(MASKS, 2, generator=generator)) / 2
    boxes = torch.cat([centre - half, centre + half], dim=1).clamp(min=0).minimum(image.repeat(2))

    ripple = F.interpolate(torch.randn(MASKS, 1, 5, 5, generator=generator), SIZE, mode='bicubic', align_corners=True)
    radius = torch.linspace(-1, 1, SIZE).square()
    return torch.sigmoid(6 * (0.9 - radius - radius[:, None] + 0.5 * ripple[:, 0])), boxes


def ours(probs: Tensor, boxes: Tensor) -> list[dict]:
    return paste_masks_to_rle(probs, boxes, (HEIGHT, WIDTH))


def torchvision_paste(probs: Tensor, boxes: Tensor) -> list[dict]:
    return encode(paste_masks_in_image(probs[:, None], boxes, (HEIGHT, WIDTH))[:, 0] >= 0.5)


def grid_sample_paste(probs: Tensor, boxes: Tensor) -> list[dict]:
    return encode(paste_masks(probs, boxes, (HEIGHT, WIDTH)))


def encode(bitmaps: Tensor) -> list[dict]:
    return [coco_mask.encode(np.asfortranarray(bitmap, dtype=np.uint8)) for bitmap in bitmaps.numpy()]


def agreement(theirs: list[dict], ours: list[dict]) -> tuple[str, str]:
    equal = sum(a == b for a, b in zip(theirs, ours, strict=True))
    a, b = rle_to_bitmaps(theirs), rle_to_bitmaps(ours)
    iou = (a & b).sum((1, 2)) / np.maximum((a | b).sum((1, 2)), 1)
    return f'{equal} of {MASKS}', f'{iou.mean():.4f} ({iou.min():.4f})'


if __name__ == '__main__':
    main()
