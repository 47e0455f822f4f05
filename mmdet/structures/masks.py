"""The instance masks of one image, kept as they were annotated until someone needs pixels."""
from collections.abc import Sequence

import mmcv
import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import roi_align

Polygons = list[np.ndarray]
RLE = dict


class InstanceMasks:
    """N instance masks of one image.

    Args:
        masks: each either the polygons of one instance, a list of (k, 2) float64 arrays of x, y in pixels, k >= 3; or a
            COCO run-length encoding, {'size': [height, width], 'counts': bytes}; or a bitmap (height, width) uint8.
        height, width: of the image, in pixels.

    Nothing is changed in place: each method returns new masks.
    """

    def __init__(self, masks: Sequence[Polygons | RLE | np.ndarray], height: int, width: int):
        self.masks = list(masks)
        self.height = int(height)
        self.width = int(width)

    def __len__(self) -> int:
        return len(self.masks)

    def __repr__(self) -> str:
        return f'InstanceMasks({len(self)} masks, height={self.height}, width={self.width})'

    def __getitem__(self, index: int | slice | Sequence[int] | np.ndarray | Tensor) -> 'InstanceMasks':
        """The masks an integer, slice, list of integers, or integer or boolean array selects."""
        if isinstance(index, Tensor):
            index = index.cpu().numpy()
        chosen = np.atleast_1d(np.arange(len(self))[index])
        return InstanceMasks([self.masks[i] for i in chosen], self.height, self.width)

    @staticmethod
    def cat(several: 'Sequence[InstanceMasks]') -> 'InstanceMasks':
        """The masks of several objects for the same image, one after another; `InstanceData` needs this."""
        first = several[0]
        return InstanceMasks([mask for masks in several for mask in masks.masks], first.height, first.width)

    @property
    def areas(self) -> np.ndarray:
        """(N,) float64, in pixels: of polygons by the shoelace formula, of bitmaps by counting."""
        return np.array([_area(mask) for mask in self.masks], dtype=np.float64)

    def to_bitmaps(self) -> np.ndarray:
        """(N, height, width) uint8, rasterised as COCO does."""
        bitmaps = np.zeros((len(self), self.height, self.width), np.uint8)
        for bitmap, mask in zip(bitmaps, self.masks, strict=True):
            bitmap[:] = self._bitmap(mask)
        return bitmaps

    def rasterised(self) -> 'InstanceMasks':
        """The same masks as bitmaps; what follows then works on pixels, as mmdetection's `poly2mask=True` does."""
        return InstanceMasks(list(self.to_bitmaps()), self.height, self.width)

    def resize(self, size: tuple[int, int]) -> 'InstanceMasks':
        """Stretch to (height, width); bitmaps by nearest neighbour."""
        height, width = size
        scale = np.array([width / self.width, height / self.height])
        return self._mapped(
            size,
            lambda polygons: [polygon * scale for polygon in polygons],
            lambda bitmap: mmcv.imresize(bitmap, (width, height), interpolation='nearest'),
        )

    def flip(self, direction: str) -> 'InstanceMasks':
        """Mirror the image: 'horizontal', 'vertical' or 'diagonal' (both)."""
        sign, offset = {
            'horizontal': ((-1, 1), (self.width, 0)),
            'vertical': ((1, -1), (0, self.height)),
            'diagonal': ((-1, -1), (self.width, self.height)),
        }[direction]
        return self._mapped(
            (self.height, self.width),
            lambda polygons: [polygon * sign + offset for polygon in polygons],
            lambda bitmap: mmcv.imflip(bitmap, direction),
        )

    def pad(self, size: tuple[int, int]) -> 'InstanceMasks':
        """Grow the image to (height, width) at its right and lower edge."""
        return self._mapped(size, lambda polygons: polygons, lambda bitmap: mmcv.impad(bitmap, shape=size, pad_val=0))

    def crop(self, region: tuple[int, int, int, int]) -> 'InstanceMasks':
        """Cut out a part of the image: x1, y1, x2, y2 in whole pixels, the last ones exclusive."""
        left, top, right, bottom = region
        height, width = bottom - top, right - left
        return self._mapped(
            (height, width),
            lambda polygons: [
                part for part in (_cut(polygon - (left, top), height, width) for polygon in polygons) if len(part) > 2
            ],
            lambda bitmap: bitmap[top:bottom, left:right],
        )

    def bounding_boxes(self) -> np.ndarray:
        """(N, 4) float32 xyxy: around a mask's vertices or, of bitmaps, its pixels; zeros for an empty mask."""
        return np.array([_bounding_box(mask) for mask in self.masks], dtype=np.float32).reshape(-1, 4)

    def crop_and_resize(self, boxes: Tensor, out_size: int, instance_index: Tensor) -> Tensor:
        """Mask targets: each box's mask on a grid of out_size x out_size cells laid over the box.

        Polygons are moved and stretched onto the grid and rasterised there as COCO does, boxes narrower or lower than
        one pixel counting as one (mmdetection's `PolygonMasks.crop_and_resize`). Bitmaps are averaged by RoIAlign
        (aligned, adaptive sampling) and are set from 0.5 (`BitmapMasks.crop_and_resize`).

        Args:
            boxes: (K, 4) xyxy in pixels of this image, used as they are, even where they leave it.
            out_size: cells per axis.
            instance_index: (K,) int64, which mask each box is for.

        Returns:
            (K, out_size, out_size) float32 of zeros and ones, on the device of `boxes`.
        """
        targets = torch.zeros((len(boxes), out_size, out_size), dtype=torch.float32)
        chosen = [self.masks[i] for i in instance_index.tolist()]
        drawn = [k for k, mask in enumerate(chosen) if isinstance(mask, list)]
        if drawn:
            grid_masks = _rasterise_in_boxes([chosen[k] for k in drawn], boxes[drawn].cpu().numpy(), out_size)
            targets[drawn] = torch.from_numpy(grid_masks).float()
        targets = targets.to(boxes.device)
        in_pixels = [k for k, mask in enumerate(chosen) if not isinstance(mask, list)]
        if in_pixels:
            targets[in_pixels] = self._align_bitmaps(boxes[in_pixels], instance_index[in_pixels], out_size)
        return targets

    def _align_bitmaps(self, boxes: Tensor, instance_index: Tensor, out_size: int) -> Tensor:
        used, row = torch.unique(instance_index, return_inverse=True)
        bitmaps = torch.from_numpy(self[used].to_bitmaps()).to(boxes.device, torch.float32)[:, None]
        rois = torch.cat([row[:, None].to(boxes.device, torch.float32), boxes.float()], dim=1)
        return (roi_align(bitmaps, rois, out_size, sampling_ratio=0, aligned=True)[:, 0] >= 0.5).float()

    def _bitmap(self, mask: Polygons | RLE | np.ndarray) -> np.ndarray:
        if isinstance(mask, list):
            return _rasterise(mask, self.height, self.width)
        return coco_mask.decode(mask) if isinstance(mask, dict) else mask

    def _mapped(self, size: tuple[int, int], of_polygons, of_bitmap) -> 'InstanceMasks':
        """Each mask mapped by the function for its kind; encoded masks become bitmaps."""
        masks = [of_polygons(mask) if isinstance(mask, list) else of_bitmap(self._bitmap(mask)) for mask in self.masks]
        return InstanceMasks(masks, *size)


def _rasterise(polygons: Polygons, height: int, width: int) -> np.ndarray:
    """(height, width) uint8: the union of the polygons, by COCO's rule."""
    if not polygons:
        return np.zeros((height, width), np.uint8)
    parts = coco_mask.frPyObjects([polygon.ravel() for polygon in polygons], height, width)
    return coco_mask.decode(coco_mask.merge(parts))


def _rasterise_in_boxes(masks: list[Polygons], boxes: np.ndarray, out_size: int) -> np.ndarray:
    """(K, out_size, out_size) uint8: mask k on the grid over box k."""
    corner = boxes[:, :2]
    scale = out_size / np.maximum(boxes[:, 2:] - corner, 1)
    placed = [
        ((polygon - corner[k]) * scale[k]).ravel() for k, polygons in enumerate(masks) for polygon in polygons
    ]
    # One call encodes all parts of all masks: this is done for every positive RoI of every step.
    parts = coco_mask.frPyObjects(placed, out_size, out_size) if placed else []
    ends = np.cumsum([len(polygons) for polygons in masks])
    groups = [parts[end - len(polygons) : end] for end, polygons in zip(ends, masks, strict=True)]
    encoded = [group[0] if len(group) == 1 else coco_mask.merge(group) for group in groups if group]
    grid_masks = np.zeros((len(masks), out_size, out_size), np.uint8)
    if encoded:
        grid_masks[[bool(group) for group in groups]] = coco_mask.decode(encoded).transpose(2, 0, 1)
    return grid_masks


def _cut(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """What of a polygon (k, 2) lies on an image of the given size, (m, 2), perhaps none (Sutherland and Hodgman, 1974).

    The parts into which a concave polygon falls stay joined, by strips along the border that have no area.
    """
    for axis, sign, limit in ((0, 1, 0), (0, -1, width), (1, 1, 0), (1, -1, height)):
        depth = sign * (polygon[:, axis] - limit)
        next_depth = np.roll(depth, -1)
        crosses = (depth >= 0) != (next_depth >= 0)
        share = depth / np.where(crosses, depth - next_depth, 1)
        crossing = polygon + share[:, None] * (np.roll(polygon, -1, axis=0) - polygon)
        crossing[:, axis] = limit
        polygon = np.stack([polygon, crossing], axis=1)[np.stack([depth >= 0, crosses], axis=1)]
    return polygon


def _bounding_box(mask: Polygons | RLE | np.ndarray) -> list[float]:
    if isinstance(mask, list):
        points = np.concatenate(mask) if mask else np.zeros((1, 2))
        return [*points.min(axis=0), *points.max(axis=0)]
    rows, columns = np.nonzero(coco_mask.decode(mask) if isinstance(mask, dict) else mask)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0, 0, 0, 0]


def _area(mask: Polygons | RLE | np.ndarray) -> float:
    if isinstance(mask, list):
        return sum(_shoelace(polygon) for polygon in mask)
    return float(coco_mask.area(mask)) if isinstance(mask, dict) else float(np.count_nonzero(mask))


def _shoelace(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))
