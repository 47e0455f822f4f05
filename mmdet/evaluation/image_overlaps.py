"""The overlaps of an image's detected objects with its targets, computed once for any number of score settings."""
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from hotcoco import mask as rle

from .federated_truth import ImageTargets, outside_of
from .greedy_matching import EVERY_THRESHOLD, IOU_THRESHOLDS, greedy_matches
from .mask_boundary import mask_boundary

OVERLAPS = ('bbox', 'segm', 'boundary')


class Matches(NamedTuple):
    """N detections of one image, best first, and at which IoU thresholds they are right.

    Attributes:
        image: the image's number.
        labels: (N,) int64.
        scores: (N,) float64.
        matched: (N, A) uint16, bits of the thresholds at which a detection has found a target that counts.
        ignored: (N, A) uint16, bits of the thresholds at which it is neither right nor wrong; all of them where the
            image is not annotated for its class.
        places: (N,) int64, its place among the detections given.
    """

    image: int
    labels: np.ndarray
    scores: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    places: np.ndarray


class ImageOverlaps:
    """O objects on one image. A score setting says which classes they are of, and with which scores.

    An overlap is computed when it is first asked for, and then kept: settings that judge the same objects share it.

    Args:
        targets: the image's.
        overlap: `'bbox'`, `'segm'` or `'boundary'`: the smaller one of the masks' IoU and their boundaries' IoU.
        boxes: (O, 4) float64, x, y, width, height; needed for `'bbox'`.
        masks: O COCO run-length encodings; needed for the others.
        areas: (O,) float64, in pixels, by which an object is inside an area range; by default its box's or mask's own.
    """

    def __init__(
        self,
        targets: ImageTargets,
        overlap: str,
        boxes: np.ndarray | None = None,
        masks: Sequence[dict[str, Any]] | None = None,
        areas: np.ndarray | None = None,
    ):
        if overlap not in OVERLAPS:
            raise ValueError(f'overlap {overlap!r} is none of {", ".join(OVERLAPS)}')
        self._targets = targets
        self._overlap = overlap
        self._boxes = boxes
        self._masks = None if masks is None else list(masks)
        if areas is None:
            areas = boxes[:, 2] * boxes[:, 3] if overlap == 'bbox' else rle.area(self._masks)
        self._areas = np.asarray(areas, np.float64)
        self._outside = outside_of(targets.area_ranges, self._areas)
        # The targets of the k-th class are those from first[k] to first[k + 1].
        classes, first = np.unique(targets.labels, return_index=True)
        self._first = [*first.tolist(), len(targets.labels)]
        self._class_number = np.full(len(targets.annotated), -1)
        self._class_number[classes] = np.arange(len(classes))
        self._iou = np.zeros((len(self._areas), len(targets.labels)))
        self._most = np.zeros((len(self._areas), len(classes)))
        self._known = np.zeros(self._most.shape, bool)
        self._boundaries: dict[tuple[str, int], dict[str, Any]] = {}

    def match(self, objects: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> Matches:
        """Matches the detections of one score setting with the targets, class by class, the best detection first.

        Args:
            objects: (N,) int64, which object each detection is.
            labels: (N,) int64 in 0..C-1.
            scores: (N,) float64; of equal ones the earlier detection is the better one.
        """
        order = np.argsort(-scores, kind='stable')
        objects, labels, scores = objects[order], labels[order], scores[order]
        counts = self._targets.annotated[labels] & (self._areas[objects] > 0)
        matched, to_ignored = self._matched(objects, self._class_number[labels], counts)
        excused = self._outside[objects] | ~self._targets.exhaustive[labels][:, None]
        ignored = np.where(excused, ~matched & EVERY_THRESHOLD, 0) | to_ignored
        ignored[~counts] = EVERY_THRESHOLD
        return Matches(self._targets.image, labels, scores, matched & ~to_ignored, ignored.astype(np.uint16), order)

    def _matched(self, objects: np.ndarray, classes: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bits (N, A) of the thresholds at which detections have a target, and at which it is an ignored one."""
        matched = np.zeros((len(objects), len(self._targets.area_ranges)), np.uint16)
        to_ignored = np.zeros_like(matched)
        rows = np.flatnonzero((classes >= 0) & counts)
        self._compute(objects[rows], classes[rows])
        rows = rows[self._most[objects[rows], classes[rows]] >= IOU_THRESHOLDS[0]]
        for number in np.unique(classes[rows]).tolist():
            own = rows[classes[rows] == number]
            targets = slice(self._first[number], self._first[number + 1])
            matched[own], to_ignored[own] = greedy_matches(
                self._iou[objects[own], targets], self._targets.ignored[targets]
            )
        return matched, to_ignored

    def _compute(self, objects: np.ndarray, classes: np.ndarray) -> None:
        """Computes what is not known of the overlaps of objects with the targets of classes, (P,) pairs."""
        unknown = ~self._known[objects, classes]
        objects, classes = objects[unknown], classes[unknown]
        for number in np.unique(classes).tolist():
            own = np.unique(objects[classes == number])
            targets = np.arange(self._first[number], self._first[number + 1])
            iou = self._iou_of(own, targets)
            self._iou[own[:, None], targets] = iou
            self._most[own, number] = iou.max(axis=1)
            self._known[own, number] = True

    def _iou_of(self, objects: np.ndarray, targets: np.ndarray) -> np.ndarray:
        no_crowds = np.zeros(len(targets), bool)
        if self._overlap == 'bbox':
            return rle.bbox_iou(self._boxes[objects], self._targets.boxes[targets], no_crowds)
        iou = rle.iou([self._masks[i] for i in objects], [self._targets.masks[i] for i in targets], no_crowds)
        if self._overlap == 'boundary':
            # Where the masks' own IoU is too small, the smaller one is too.
            rows, columns = (np.unique(each) for each in np.nonzero(iou >= IOU_THRESHOLDS[0]))
            if len(rows):
                detected = [self._boundary('detected', self._masks, i) for i in objects[rows].tolist()]
                true = [self._boundary('true', self._targets.masks, i) for i in targets[columns].tolist()]
                corner = np.ix_(rows, columns)
                iou[corner] = np.minimum(iou[corner], rle.iou(detected, true, no_crowds[columns]))
        return iou

    def _boundary(self, kind: str, masks: Sequence[dict[str, Any]], index: int) -> dict[str, Any]:
        """A mask's boundary, kept: several classes may ask for it."""
        if (kind, index) not in self._boundaries:
            self._boundaries[kind, index] = mask_boundary(masks[index])
        return self._boundaries[kind, index]
