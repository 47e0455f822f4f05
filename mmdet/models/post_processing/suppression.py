"""Rules of suppression: which of overlapping detections survive.

A rule is called with candidates in order of falling score, as NumPy arrays: `boxes` (n, 4) float32 xyxy, `scores`
(n,), `labels` (n,) integers (boxes suppress each other within a label only, unless the rule is class-agnostic), and
`at_most`, the number of survivors wanted. It returns the survivors best first: index (k,) into the candidates and
score (k,). There may be more than `at_most`.

No candidate is affected by a worse one, so the best survivors of the best candidates are the best survivors of all.

IoU is computed in float32 from the boxes as they are given.
"""
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from torchvision.ops import nms as torchvision_nms

from mmdet.errors import ConfigError

# A group up to this size costs less as a list of pairs than as one call of the compiled kernel, and
# there may be a thousand such groups.
LARGEST_PAIRED_GROUP = 64
# Beyond this many pairs in all, their memory (about 100 bytes each) is not worth the calls they save.
MOST_PAIRS = 1 << 20

Survivors = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class NMS:
    """Greedy non-maximum suppression: a box goes if its IoU with a better survivor is above `iou_threshold`.

    Args:
        iou_threshold: IoU above which (strictly) the lower-scoring box goes.
        offset: 1 where a box's last pixel is part of it (width x2 - x1 + 1, mmdetection 1.x), else 0.
        class_agnostic: let boxes of different classes suppress each other.
    """

    iou_threshold: float
    offset: Literal[0, 1] = 0
    class_agnostic: bool = False

    def __call__(self, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, at_most: int) -> Survivors:
        """The survivors are those of `torchvision.ops.nms` run label by label; equal scores keep the order given."""
        order, sizes = _by_label(np.zeros_like(labels) if self.class_agnostic else labels)
        corners = np.ascontiguousarray(boxes[order].T)
        corners[2:] += self.offset
        kept = np.empty(len(order), dtype=bool)

        paired = sizes <= LARGEST_PAIRED_GROUP
        if (sizes[paired] ** 2).sum() > 2 * MOST_PAIRS:
            paired[:] = False
        members = np.repeat(paired, sizes)
        kept[members] = self._kept_by_pairs(corners[:, members], sizes[paired])

        ends = sizes.cumsum()
        for start, end in zip((ends - sizes)[~paired], ends[~paired], strict=True):
            kept[start:end] = self._kept_by_kernel(corners[:, start:end])

        survivors = np.sort(order[kept])
        return survivors, scores[survivors]

    def _kept_by_pairs(self, corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """(n,) bool, for consecutive groups of the given sizes, each best first."""
        better, worse = _pairs_within(sizes)
        # The float32 IoU is compared with the threshold in double precision, as torchvision's kernel does.
        overlapping = _iou(corners, better, worse).astype(np.float64) > self.iou_threshold
        better, worse = better[overlapping], worse[overlapping]

        # A box is kept if no better kept box overlaps it. Asking this of all boxes at once settles, in each round,
        # those whose better overlapping boxes are settled: there are no more rounds than links in the longest chain.
        kept = np.ones(corners.shape[1], dtype=bool)
        while True:
            previous, kept = kept, np.ones_like(kept)
            kept[worse[previous[better]]] = False
            if np.array_equal(previous, kept):
                return kept

    def _kept_by_kernel(self, corners: np.ndarray) -> np.ndarray:
        """(n,) bool, for one group, best first."""
        boxes = torch.from_numpy(np.ascontiguousarray(corners.T))
        falling = torch.arange(len(boxes), 0, -1, dtype=boxes.dtype)
        kept = np.zeros(len(boxes), dtype=bool)
        kept[torchvision_nms(boxes, falling, self.iou_threshold).numpy()] = True
        return kept


@dataclass(frozen=True)
class SoftNMS:
    """Soft-NMS (Bodla et al., ICCV 2017): a box that overlaps a better survivor loses score instead of going.

    Survivors are taken greedily by their score of the moment; equal scores in the order given.

    Args:
        iou_threshold: IoU from which a box is decayed (`linear`) or dropped (`naive`); `gaussian` does not use it.
        sigma: width of the Gaussian decay exp(-IoU^2 / sigma).
        min_score: boxes whose score falls below it are dropped.
        method: `linear` multiplies by 1 - IoU, `gaussian` by the Gaussian, `naive` by 0.
        offset: 1 where a box's last pixel is part of it (width x2 - x1 + 1, mmdetection 1.x), else 0.
        class_agnostic: let boxes of different classes decay each other.
    """

    iou_threshold: float = 0.3
    sigma: float = 0.5
    min_score: float = 1e-3
    method: Literal['linear', 'gaussian', 'naive'] = 'linear'
    offset: Literal[0, 1] = 0
    class_agnostic: bool = False

    def __post_init__(self) -> None:
        if self.method not in ('linear', 'gaussian', 'naive'):
            raise ConfigError(f"nms: soft_nms has no method '{self.method}'; use 'linear', 'gaussian' or 'naive'")

    def __call__(self, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, at_most: int) -> Survivors:
        """Scores returned are the decayed ones."""
        corners = boxes.T.copy()
        corners[2:] += self.offset
        remaining = np.where(scores >= self.min_score, scores, -np.inf).astype(scores.dtype)
        survivors: list[int] = []
        survivor_scores: list[np.floating] = []
        while len(survivors) < min(at_most, len(scores)):
            best = int(remaining.argmax())
            if remaining[best] == -np.inf:
                break
            survivors.append(best)
            survivor_scores.append(remaining[best])
            remaining[best] = -np.inf
            rivals = np.flatnonzero((self.class_agnostic | (labels == labels[best])) & (remaining > -np.inf))
            decayed = remaining[rivals] * self._decay(_iou(corners, np.full_like(rivals, best), rivals))
            remaining[rivals] = np.where(decayed >= self.min_score, decayed, -np.inf)
        return np.array(survivors, dtype=np.int64), np.array(survivor_scores, dtype=scores.dtype)

    def _decay(self, iou: np.ndarray) -> np.ndarray:
        if self.method == 'gaussian':
            return np.exp(-(iou**2) / np.float32(self.sigma))
        overlapping = iou >= self.iou_threshold
        return np.where(overlapping, 1 - iou if self.method == 'linear' else 0, 1).astype(iou.dtype)


RULES = {'nms': NMS, 'soft_nms': SoftNMS}


def suppression_rule(nms: Mapping[str, Any]) -> NMS | SoftNMS:
    """The rule a config's `nms=dict(type=..., iou_threshold=..., ...)` asks for.

    Raises:
        ConfigError: unknown `type` or key, or `iou_threshold` missing.
    """
    parameters = dict(nms)
    kind = parameters.pop('type', 'nms')
    if kind not in RULES:
        raise ConfigError(f"nms: there is no type '{kind}'; use one of {', '.join(RULES)}")
    known = [field.name for field in fields(RULES[kind])]
    for name in parameters:
        if name not in known:
            raise ConfigError(f"nms: {kind} has no parameter '{name}'; it has {', '.join(known)}")
    if kind == 'nms' and 'iou_threshold' not in parameters:
        raise ConfigError("nms: 'iou_threshold' is missing, e.g. nms=dict(type='nms', iou_threshold=0.5)")
    return RULES[kind](**parameters)


def _by_label(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An order that brings equal labels together, each in the order given, and the sizes of these groups."""
    order = labels.argsort(kind='stable')
    first = np.flatnonzero(np.diff(labels[order], prepend=labels.min(initial=0) - 1))
    return order, np.diff(first, append=len(order))


def _pairs_within(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs i < j of positions within consecutive groups of the given sizes."""
    position = np.arange(sizes.sum())
    followers = np.repeat(sizes.cumsum(), sizes) - position - 1
    earlier = np.repeat(position, followers)
    first_pair = followers.cumsum() - followers
    later = np.arange(len(earlier)) - np.repeat(first_pair - position - 1, followers)
    return earlier, later


def _iou(corners: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of boxes `a` with boxes `b`, indices (p,) into `corners` (4, n); 0 for two boxes without area."""
    x1, y1, x2, y2 = corners
    area = (x2 - x1) * (y2 - y1)
    width = np.minimum(x2[a], x2[b]) - np.maximum(x1[a], x1[b])
    height = np.minimum(y2[a], y2[b]) - np.maximum(y1[a], y1[b])
    intersection = np.maximum(width, 0) * np.maximum(height, 0)
    union = area[a] + area[b] - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union != 0)
