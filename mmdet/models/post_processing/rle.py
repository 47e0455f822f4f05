"""COCO run-length encodings made from where masks switch between background and object.

A mask is read column by column (COCO's order): the pixel at (row, column) has position column * H + row. A *switch*
is a position at which the mask's value differs from the pixel before; the runs are the distances from
switch to switch. No image is painted.
"""
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

RLE = dict[str, Any]


def rle_from_switches(
    mask_index: np.ndarray, position: np.ndarray, num_masks: int, image_size: tuple[int, int]
) -> list[RLE]:
    """Compressed COCO RLEs, byte for byte what `pycocotools.mask.encode` makes of the bitmaps.

    Two switches at one position cancel out, as at the foot of an object that goes on at the head of the
    next column.

    Args:
        mask_index: (n,) int64, the mask each switch belongs to, in any order.
        position: (n,) int64 in 0..H * W.
        num_masks: the number of encodings to return; a mask without switches is empty.
        image_size: (H, W).

    Returns:
        `num_masks` dicts `{'size': [H, W], 'counts': bytes}`.
    """
    if num_masks == 0:
        return []
    height, width = image_size
    pixels = height * width

    # Callers have nearly all of them in order, the best case of the stable sort.
    switches = np.sort(mask_index * (pixels + 1) + position, kind='stable')
    first_of_equal = np.flatnonzero(np.diff(switches, prepend=-1))
    odd = np.diff(first_of_equal, append=len(switches)) % 2 == 1
    mask_index, position = np.divmod(switches[first_of_equal[odd]], pixels + 1)
    before_the_end = position < pixels
    mask_index, position = mask_index[before_the_end], position[before_the_end]

    switches_of_mask = np.bincount(mask_index, minlength=num_masks)
    last = switches_of_mask.cumsum()
    runs = np.insert(position, last, pixels) - np.insert(position, last - switches_of_mask, 0)
    ends = (last + np.arange(1, num_masks + 1)).tolist()
    starts = [0, *ends[:-1]]
    uncompressed = [{'size': [height, width], 'counts': runs[i:j]} for i, j in zip(starts, ends, strict=True)]
    return coco_mask.frPyObjects(uncompressed, height, width)


def switches_of_columns(crop: np.ndarray, top: int, columns: np.ndarray, height: int) -> np.ndarray:
    """The switches of image columns that are background but for `crop`.

    Args:
        crop: (h, w) bool.
        top: the image row of the crop's first row.
        columns: (w,) int64, the image column of each column of the crop.
        height: of the image.

    Returns:
        (n,) int64 positions, in the order of `columns`.
    """
    framed = np.zeros((crop.shape[1], crop.shape[0] + 2), dtype=bool)
    framed[:, 1:-1] = crop.T
    column, row = np.divmod(np.flatnonzero(framed[:, 1:] != framed[:, :-1]), crop.shape[0] + 1)
    return columns[column] * height + top + row


def rle_from_crops(crops: Iterable[tuple[np.ndarray, int, int]], image_size: tuple[int, int]) -> list[RLE]:
    """Compressed COCO RLEs of masks that are background but for a rectangle.

    Args:
        crops: for each mask the rectangle (h, w) bool, and the image column and row of its first pixel; what lies
            outside the image is cut off.
        image_size: (H, W).
    """
    height, width = image_size
    owners, positions, count = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)], 0
    for crop, left, top in crops:
        first_row, first_column = max(-top, 0), max(-left, 0)
        visible = crop[first_row : max(height - top, 0), first_column : max(width - left, 0)]
        columns = left + first_column + np.arange(visible.shape[1])
        switches = switches_of_columns(visible, top + first_row, columns, height)
        owners.append(np.full_like(switches, count))
        positions.append(switches)
        count += 1
    return rle_from_switches(np.concatenate(owners), np.concatenate(positions), count, image_size)


def rle_to_bitmaps(rles: Sequence[RLE]) -> np.ndarray:
    """(K, H, W) bool from K compressed RLEs of one image size; (0, 0, 0) for none."""
    if not rles:
        return np.zeros((0, 0, 0), dtype=bool)
    return coco_mask.decode(list(rles)).transpose(2, 0, 1).astype(bool, order='C')
