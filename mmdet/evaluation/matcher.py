"""Matching detections with the ground truth, beside the detector."""
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import compress
from typing import Any

import numpy as np
from hotcoco import StreamingEval
from hotcoco import mask as rle

from .detections import Detections
from .hopeless_masks import STAND_IN, may_match


class Matcher:
    """Boxes or masks, matched batch by batch in a thread of their own while the next batch is detected.

    hotcoco matches without holding Python's lock, and on all cores. Batches are matched in the order they come, one at
    a time, and no more than one waits. In another process a matcher arrives once it has matched what it was given.

    Args:
        evaluator: takes the matches.
        iou_type: `'bbox'` or `'segm'`.
        counts_empty: whether a detection of zero area counts (as a false positive), or is left out.
    """

    def __init__(self, evaluator: StreamingEval, iou_type: str, counts_empty: bool) -> None:
        self._evaluator = evaluator
        self._iou_type = iou_type
        self._counts_empty = counts_empty
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f'match {iou_type}')
        self._batch: Future[None] | None = None

    def __reduce__(self):
        return Matcher, (self._matched(), self._iou_type, self._counts_empty)

    @classmethod
    def merged(cls, matchers: Sequence['Matcher']) -> 'Matcher':
        """What several matchers matched, as one; of an image that several saw, the last one's matches."""
        evaluator = StreamingEval.merge(matcher._matched() for matcher in matchers)
        return cls(evaluator, matchers[0]._iou_type, matchers[0]._counts_empty)

    def match(
        self, images: Sequence[dict[str, Any]], targets: Sequence[dict[str, Any]], batch: Sequence[Detections]
    ) -> None:
        """Begins to match a batch of detections with the targets of its images, which need not all have detections.

        Raises:
            Exception: whatever went wrong with the batch before.
        """
        rows, masks = _boxes(batch) if self._iou_type == 'bbox' else _masks(batch, targets)
        if not self._counts_empty:
            counts = rows[:, 3] * rows[:, 4] > 0
            rows, masks = rows[counts], masks and list(compress(masks, counts))
        self._matched()
        self._batch = self._thread.submit(self._evaluator.update, images, targets, rows, segmentation=masks)

    def figures(self) -> dict[str, float]:
        """The figures of all matches, after which no more can be matched; raises what went wrong with the last batch.

        They have hotcoco's own names, and there is `AP/<category id>` of every category with ground truth.
        """
        evaluation = self._matched().finalize()
        evaluation.accumulate()
        evaluation.summary_lines()  # computes the figures without printing them, as `summarize` does
        return evaluation.get_results(per_class=True)

    def _matched(self) -> StreamingEval:
        """The evaluator, once the last batch is matched."""
        batch, self._batch = self._batch, None
        if batch is not None:
            batch.result()
        return self._evaluator


def _boxes(batch: Sequence[Detections]) -> tuple[np.ndarray, None]:
    """What hotcoco takes as boxes, see `_rows`."""
    return _rows(batch, np.concatenate([np.empty((0, 4)), *(detections.boxes for detections in batch)])), None


def _masks(batch: Sequence[Detections], targets: Sequence[dict[str, Any]]) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """What hotcoco takes as masks: rows, see `_rows`, and run-length encodings.

    hotcoco has a mask's area from the box in its row, and looks at that box for nothing else: it is one of the mask's
    area at the origin.
    """
    masks = [mask for detections in batch for mask in detections.masks]
    boxes = np.zeros((len(masks), 4))
    boxes[:, 2] = areas = rle.area(masks)
    boxes[:, 3] = 1
    rows = _rows(batch, boxes)
    hopes = may_match(rows[:, 0], rows[:, 6], areas, targets)
    return rows, [mask if hope else STAND_IN for mask, hope in zip(masks, hopes.tolist(), strict=True)]


def _rows(batch: Sequence[Detections], boxes: np.ndarray) -> np.ndarray:
    """(N, 7) float64: image id, x, y, width, height, score, category id of a batch's N detections."""
    rows = np.empty((len(boxes), 7))
    rows[:, 0] = np.repeat([detections.image_id for detections in batch], [len(each.scores) for each in batch])
    rows[:, 1:5] = boxes
    rows[:, 5] = np.concatenate([[], *(detections.scores for detections in batch)])
    rows[:, 6] = np.concatenate([[], *(detections.category_ids for detections in batch)])
    return rows
