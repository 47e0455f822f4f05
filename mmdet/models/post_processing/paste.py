"""From the mask head's small square of probabilities to a mask on the image.

`paste_masks` is the definition, the paste of detectron2 and mmdetection 3: every pixel centre under the
box samples the M x M probabilities bilinearly (cell centres at half-integers, zero outside), and is
object where the sample reaches the threshold.

`paste_masks_to_rle` finds the same pixels without sampling them. Down one image column the sample is a
piecewise linear function with its knots at the M cell centres, so the column's runs begin and end where
that function crosses the threshold. There are M + 1 pieces to look at, however tall the box.
"""
from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet.errors import ConfigError

from .rle import RLE, rle_from_switches, switches_of_columns

# Knots of this many image columns are worked on at a time: few enough to stay in a processor's cache.
KNOTS_AT_A_TIME = 1 << 16
# Boxes no wider or taller than this, in pixels, are sampled pixel by pixel.
THIN = 1e-3

ArrayOrTensor = TypeVar('ArrayOrTensor', np.ndarray, Tensor)


def paste_masks(probs: Tensor, boxes: Tensor, image_size: tuple[int, int], threshold: float = 0.5) -> Tensor:
    """Masks as bitmaps, pixel for pixel as mmdetection 3 pastes them on the CPU.

    A mask is pasted from one pixel before its box to one pixel after it, as there. At thresholds of 0.5
    and above nothing outside the box can be object anyway.

    Args:
        probs: (K, M, M) float in 0..1, after the sigmoid.
        boxes: (K, 4) finite xyxy in pixels of the image.
        image_size: (H, W).
        threshold: there is object where samples reach it (`>=`); above 0.

    Returns:
        (K, H, W) bool on the device of `probs`.

    Raises:
        ConfigError: `threshold` is not above 0.
    """
    _check(threshold)
    pasted = torch.zeros(len(probs), *image_size, dtype=torch.bool, device=probs.device)
    for k, (left, top, right, bottom) in enumerate(_regions(boxes, image_size).tolist()):
        columns = torch.arange(left, right, device=probs.device)
        rows = torch.arange(top, bottom, device=probs.device)
        pasted[k, top:bottom, left:right] = _sample(probs[k], boxes[k], columns, rows) >= threshold
    return pasted


def paste_masks_to_rle(probs: Tensor, boxes: Tensor, image_size: tuple[int, int], threshold: float = 0.5) -> list[RLE]:
    """The masks of `paste_masks` (same arguments, same errors) as compressed COCO RLEs.

    Same pixels, not nearly the same: an image column in which some sample lies closer to the threshold than
    float32 rounding can move it is sampled pixel by pixel, as `paste_masks` does. Computed on the CPU
    whatever the device of the inputs (300 masks are a megabyte).

    Returns:
        K dicts `{'size': [H, W], 'counts': bytes}`, equal to `pycocotools.mask.encode` of the bitmaps.
    """
    _check(threshold)
    height = image_size[0]
    probs, boxes = probs.detach().float().cpu(), boxes.detach().float().cpu()
    regions = _regions(boxes, image_size).numpy()
    mask, x = _columns_under(regions)
    thin = ((boxes[:, 2:] - boxes[:, :2]).amin(1) <= THIN).numpy()

    with np.errstate(divide='ignore', invalid='ignore'):
        column, y, doubtful = _crossings(probs.numpy(), boxes.numpy(), mask, x, threshold)
    doubtful |= thin[mask]

    certain = ~doubtful[column]
    column, y = column[certain], y[certain]
    owner = mask[column]
    row = np.ceil(y).astype(np.int64).clip(regions[owner, 1], regions[owner, 3])
    owners, positions = [owner], [x[column] * height + row]

    mask, x = mask[doubtful], x[doubtful]
    for k in np.unique(mask):
        columns = x[mask == k]
        top, bottom = regions[k, [1, 3]]
        sample = _sample(probs[k], boxes[k], torch.from_numpy(columns), torch.arange(top, bottom))
        switches = switches_of_columns((sample >= threshold).numpy(), top, columns, height)
        owners.append(np.full_like(switches, k))
        positions.append(switches)
    return rle_from_switches(np.concatenate(owners), np.concatenate(positions), len(probs), image_size)


def _check(threshold: float) -> None:
    if not threshold > 0:
        raise ConfigError(f'mask_thr_binary is {threshold}; a mask threshold must be above 0')


def _regions(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """(K, 4) int64, the pixels each mask is pasted on: left, top (inclusive), right, bottom (exclusive)."""
    height, width = image_size
    size = boxes.new_tensor([width, height])
    start = (boxes[:, :2].floor() - 1).clamp(min=0).minimum(size)
    end = (boxes[:, 2:].ceil() + 1).minimum(size).maximum(start)
    return torch.cat([start, end], dim=1).long()


def _columns_under(regions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every image column of every region: mask index (n,) and x (n,)."""
    widths = regions[:, 2] - regions[:, 0]
    mask = np.repeat(np.arange(len(regions)), widths)
    x = np.arange(len(mask)) - np.repeat(widths.cumsum() - widths - regions[:, 0], widths)
    return mask, x


def _sample(prob: Tensor, box: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """(h, w) float32: the probabilities (M, M) of a box (4,) at the pixels in rows (h,) x columns (w,)."""
    x = _relative(columns, box[0], box[2])
    y = _relative(rows, box[1], box[3])
    grid = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=-1)
    # In a box without extent a pixel samples, as in mmdetection, the middle of the mask.
    grid = grid.masked_fill(grid.isinf(), 0)
    return F.grid_sample(prob.float()[None, None], grid[None], align_corners=False)[0, 0]


def _relative(pixel: ArrayOrTensor, low: ArrayOrTensor, high: ArrayOrTensor) -> ArrayOrTensor:
    """Where pixel centres lie between two sides (float32) of a box: -1..1, as `grid_sample` counts."""
    return (pixel + 0.5 - low) / (high - low) * 2 - 1


def _crossings(
    probs: np.ndarray, boxes: np.ndarray, mask: np.ndarray, x: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the sample crosses the threshold on its way down each of n image columns.

    Args:
        probs: (K, M, M) float32.
        boxes: (K, 4) float32.
        mask: (n,) the mask each column belongs to.
        x: (n,) the column of the image.
        threshold: above 0.

    Returns:
        column (c,), ascending indices into the n columns; y (c,) float64, the image row of each crossing,
        ascending within a column (a pixel is past the crossing if its row is at least y); doubtful (n,) bool,
        the columns in which some pixel's sample may be within rounding of the threshold.
    """
    size = probs.shape[-1]
    # How far our samples and `grid_sample`'s may lie apart: a coordinate of up to `size` cells has been rounded to
    # float32 six times; a sample moves with it by its slope, at most 1 per cell along each axis, and is rounded itself.
    coordinate_rounding = 3e-7 * size
    value_rounding = 5e-7
    rounding = 2 * coordinate_rounding + value_rounding

    doubtful = np.zeros(len(mask), dtype=bool)
    columns, knots, starts, ends, steepest = [], [], [], [], []
    for index, profiles, steps in _profiles(probs, boxes, mask, x):
        values = profiles.ravel()
        reaches = values >= np.float32(threshold)
        # A profile begins and ends with zero, so no crossing is found from one to the next.
        crossed = np.flatnonzero(reaches[1:] != reaches[:-1])
        column, knot = np.divmod(crossed, size + 2)
        columns.append(index[column])
        knots.append(knot)
        starts.append(values[crossed])
        ends.append(values[crossed + 1])
        slope_across = np.abs(steps.ravel())
        steepest.append(np.maximum(slope_across[crossed], slope_across[crossed + 1]))

        near = values >= np.float32(threshold - rounding)
        near ^= values >= np.float32(threshold + rounding)
        doubtful[index[np.flatnonzero(near) // (size + 2)]] = True
    if not columns:
        return np.zeros(0, np.int64), np.zeros(0), doubtful

    column, knot = np.concatenate(columns), np.concatenate(knots)
    start, end = np.concatenate(starts, dtype=np.float64), np.concatenate(ends, dtype=np.float64)
    top, bottom = boxes[:, [1, 3]].T.astype(np.float64)
    pixels_per_cell = ((bottom - top) / size)[mask[column]]
    # Knot 0 is the zero above the mask, half a cell above its upper edge.
    cell = knot - 0.5 + (threshold - start) / (end - start)
    y = cell * pixels_per_cell + top[mask[column]] - 0.5

    # Of the pixels on a linear piece those next to the crossing come nearest to the threshold.
    slope = np.abs(end - start)
    off_threshold = np.abs(y - np.rint(y)) * slope
    slope += np.concatenate(steepest)
    uncertainty = (slope * coordinate_rounding + value_rounding) * pixels_per_cell
    doubtful[column[off_threshold <= uncertainty]] = True
    return column, y, doubtful


def _profiles(
    probs: np.ndarray, boxes: np.ndarray, mask: np.ndarray, x: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The samples down image columns at their knots: the M cell centres and the zeros before and after.

    Arguments as of `_crossings`. Columns that sample nothing but the zeros left and right of the mask are left out.

    Yields:
        Chunks of `index` (c,) of the columns, `profiles` (c, M + 2) float32, and `steps` (c, M + 2) float32, by how
        much the sample changes from the cell left of the column to the cell right of it.
    """
    size = probs.shape[-1]
    left_side, right_side = boxes[:, 0], boxes[:, 2]
    cell = (_relative(x.astype(np.float32), left_side[mask], right_side[mask]) + 1) * (size / 2) - 0.5
    index = np.flatnonzero((cell >= -1) & (cell < size))
    left = np.floor(cell[index])
    fraction = (cell[index] - left)[:, None]

    # A row holds one column of a mask's cells between its two zeros; a mask is M + 2 rows.
    rows = np.pad(probs.transpose(0, 2, 1), [(0, 0), (1, 1), (1, 1)]).reshape(-1, size + 2)
    left_row = mask[index] * (size + 2) + left.astype(np.int64) + 1
    at_a_time = max(1, KNOTS_AT_A_TIME // (size + 2))
    for start in range(0, len(index), at_a_time):
        chunk = slice(start, start + at_a_time)
        profiles = rows.take(left_row[chunk], axis=0)
        steps = rows.take(left_row[chunk] + 1, axis=0)
        steps -= profiles
        profiles += steps * fraction[chunk]
        yield index[chunk], profiles, steps
