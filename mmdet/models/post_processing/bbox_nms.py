"""From the scores of every proposal in every class to an image's detections, at the cost of the few that matter.

1,000 proposals x 1,230 classes are 1.2 million candidates, of which an image keeps 300. A better candidate is never
affected by a worse one, so the best 300 survivors among the best thousand candidates are the best 300 survivors of
all, if there are that many; if not, more candidates are looked at. The result is that of looking at all of
them; the work does not grow with the number of classes, but for one pass over the scores.
"""
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .suppression import suppression_rule

# `boxes_of(roi_index (n,), labels (n,)) -> (n, 4)`: the boxes of n (proposal, class) pairs.
BoxesOf = Callable[[Tensor, Tensor], Tensor]

FIRST_LOOK = 1024
CELL = 64
# torch works on so many elements in the calling thread alone. Calling up the others costs more than they save here:
# many milliseconds where data loaders keep the cores busy. (`index_select` for the same reason: indexing with tensors
# calls them for a few thousand.)
ONE_THREAD = 32767


def multiclass_nms(
    boxes: Tensor | BoxesOf,
    scores: Tensor,
    score_thr: float,
    nms: Mapping[str, Any],
    max_per_img: int,
    min_bbox_size: float = -1,
    class_shift: float | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The detections that survive suppression within each class, best first.

    Candidates are the (proposal, class) pairs with `score > score_thr`, in the order of a stable sort: by falling
    score, equal scores by proposal, then class. The result is exactly the greedy one over all of them: that of
    torchvision's `batched_nms` where it goes class by class (over 1,000 boxes) and, with a `class_shift`, that of
    mmdetection 3's `multiclass_nms`. These order their detections by an unstable sort, so that among detections of
    *equal score* their order, and which ones `max_per_img` cuts off, is any of the possible ones. Ours is the stable
    one.

    Suppression runs on the CPU whatever the device of the inputs, so that every device gives the same result.

    Args:
        boxes: xyxy in any pixels: (R, 4) shared by the classes; (R, C * 4) or (R, C, 4), one for each class; or a
            function `boxes_of(roi_index (n,), labels (n,)) -> (n, 4)`, called for the candidates looked at and no
            others (once more, for more of them, if the first did not do).
        scores: (R, C) float32, foreground classes only, C >= 1. NaN is no candidate.
        score_thr: candidates score above it.
        nms: the rule of suppression, e.g. `dict(type='nms', iou_threshold=0.5)`; see `suppression.py`.
        max_per_img: the number of detections kept; all of them if it is not positive.
        min_bbox_size: candidates must be wider and taller than so many pixels; negative: they may be of any size.
        class_shift: the longer side of the image that boxes are clipped to. IoU is computed from the boxes of class c
            shifted by c times (1 + the largest coordinate of all candidates), as mmcv's `batched_nms` does to keep the
            classes apart, with the rounding that brings: up to 1/16 of a pixel in LVIS's last classes. None: from the
            boxes as they are.

    Returns:
        boxes (K, 4), scores (K,), labels (K,) int64 in 0..C-1, and roi_index (K,) int64, the proposal each comes from.

    Raises:
        ConfigError: `nms` names an unknown rule or parameter.
    """
    boxes_of = boxes if callable(boxes) else _lookup(boxes, scores.shape[1])
    rule = suppression_rule(nms)
    wanted = max_per_img if max_per_img > 0 else scores.numel()

    looked_at = max(FIRST_LOOK, 3 * wanted)
    while True:
        candidate_scores, roi_index, labels = top_candidates(scores, score_thr, looked_at)
        candidate_boxes = boxes_of(roi_index, labels)
        falling = candidate_scores.cpu().numpy()
        corners = candidate_boxes.detach().cpu().numpy()
        large = _larger(corners, min_bbox_size)
        classes = labels.cpu().numpy()
        shifted = corners if class_shift is None else _shifted(corners, classes, class_shift, len(falling) < looked_at)
        kept, kept_scores = rule(shifted[large], falling[large], classes[large], wanted)
        if len(falling) < looked_at:
            break
        # A survivor whose score suppression has lowered below the last candidate's may yet be overtaken.
        settled = int((kept_scores >= falling[-1]).sum())
        if settled >= wanted:
            break
        looked_at = max(2 * looked_at, looked_at * wanted * 5 // (4 * max(settled, 1)))

    kept = torch.from_numpy(large[kept[:wanted]]).to(scores.device)
    kept_scores = torch.from_numpy(kept_scores[:wanted]).to(scores.device)
    return candidate_boxes[kept], kept_scores, labels[kept], roi_index[kept]


def _shifted(corners: np.ndarray, labels: np.ndarray, longer_side: float, are_all: bool) -> np.ndarray:
    """The boxes (n, 4), each class's in coordinates of its own.

    Where there are more candidates than these, one of the thousands is taken to reach the image's far border.
    """
    largest = corners.max(initial=0) if are_all else corners.dtype.type(longer_side)
    return corners + labels.astype(corners.dtype)[:, None] * (largest + corners.dtype.type(1))


def _larger(corners: np.ndarray, min_bbox_size: float) -> np.ndarray:
    """Which of the boxes (n, 4) are wider and taller than `min_bbox_size`, in their order; all where it is negative."""
    if min_bbox_size < 0:
        return np.arange(len(corners))
    return np.flatnonzero((corners[:, 2:] - corners[:, :2] > min_bbox_size).all(axis=1))


def top_candidates(scores: Tensor, score_thr: float, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `k` best (proposal, class) pairs above `score_thr`, as a stable sort of all of them orders them.

    A row of scores is seen as cells of `CELL` classes. The k-th best of the cells' maxima is a lower bound of the
    k-th best score, so after one pass that finds the maxima only the cells that reach it are looked into.

    Args:
        scores: (R, C) float32 or float64, of any strides. NaN is below every threshold.
        score_thr: scores must be above it.
        k: the number of pairs wanted.

    Returns:
        scores (n,) falling, roi_index (n,) and labels (n,) int64; n < k only if no more pairs are above the
        threshold. Equal scores are ordered by roi_index, then label.
    """
    scores = scores.detach()
    width = min(CELL, scores.shape[1])
    maxima = _cell_maxima(scores, width).cpu().numpy()
    if np.isnan(maxima).any():
        scores = scores.masked_fill(scores.isnan(), -torch.inf)
        maxima = _cell_maxima(scores, width).cpu().numpy()

    at_least = np.nextafter(maxima.dtype.type(score_thr), maxima.dtype.type(np.inf))
    cells = np.flatnonzero(maxima >= at_least)
    if len(cells) > k:
        at_least = np.partition(maxima, -k, axis=None)[-k]
        cells = np.flatnonzero(maxima >= at_least)
    row, cell = np.divmod(cells, maxima.shape[1])

    # The last cell of a row is read as the row's last `width` columns; those of the cell before it do not count twice.
    first_column = np.minimum(cell * width, scores.shape[1] - width)
    values = _windows(scores, row, first_column, width)
    eligible = values >= at_least
    eligible &= np.arange(width) >= (cell * width - first_column)[:, None]

    hits = np.flatnonzero(eligible)
    hits = hits[(-values.ravel()[hits]).argsort(kind='stable')[:k]]
    window, offset = np.divmod(hits, width)
    return _to(values.ravel()[hits], scores), _to(row[window], scores), _to(first_column[window] + offset, scores)


def _cell_maxima(scores: Tensor, width: int) -> Tensor:
    """(R, ceil(C / width)): the best of each `width` scores of a row; the last cell holds what is left."""
    in_whole_cells = scores.shape[1] // width * width
    cells = scores[:, :in_whole_cells].unflatten(1, (-1, width))
    rows_at_a_time = len(scores) if scores.is_cuda else ONE_THREAD // in_whole_cells
    maxima = torch.cat([block.amax(2) for block in cells.split(max(rows_at_a_time, 1))])
    if in_whole_cells == scores.shape[1]:
        return maxima
    return torch.cat([maxima, scores[:, in_whole_cells:].amax(1, keepdim=True)], dim=1)


def _windows(scores: Tensor, row: np.ndarray, first_column: np.ndarray, width: int) -> np.ndarray:
    """(n, width): of each row given, the scores from its first column on."""
    if not len(row):
        return scores.new_zeros(0, width).cpu().numpy()
    if scores.stride(1) != 1:
        scores = scores.contiguous()
    # Selecting rows, here of the matrix of all windows, is several times faster than indexing by row and column.
    row_stride = scores.stride(0)
    windows = scores.as_strided(((len(scores) - 1) * row_stride + scores.shape[1],), (1,)).unfold(0, width, 1)
    parts = _to(row * row_stride + first_column, scores).split(ONE_THREAD // width)
    return np.concatenate([windows.index_select(0, part).cpu().numpy() for part in parts])


def _lookup(boxes: Tensor, num_classes: int) -> BoxesOf:
    """Boxes (R, 4), (R, C * 4) or (R, C, 4) as a function of proposal and class."""
    rows = boxes.reshape(-1, 4)
    if boxes.shape[1:] == (4,):
        return lambda roi_index, labels: rows.index_select(0, roi_index)
    return lambda roi_index, labels: rows.index_select(0, roi_index * num_classes + labels)


def _to(array: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(array).to(like.device)
