"""The detections of one image as evaluators and result files want them."""
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from hotcoco import mask as rle


class Detections(NamedTuple):
    """N detections of one image.

    Attributes:
        image_id: as the annotation file says.
        boxes: (N, 4) float64, x, y, width, height in pixels of the original image.
        scores: (N,) float64.
        category_ids: (N,) int64.
        masks: N COCO run-length encodings, or None.
    """

    image_id: int
    boxes: np.ndarray
    scores: np.ndarray
    category_ids: np.ndarray
    masks: list[dict[str, Any]] | None

    @classmethod
    def from_instances(cls, image_id: int, instances: Mapping[str, Any], category_ids: np.ndarray) -> 'Detections':
        """Takes over a detector's `bboxes` (N, 4) xyxy, `scores` and `labels` (N,), and its `masks` if it has any.

        Args:
            category_ids: (C,) label -> category id.
        """
        boxes = instances['bboxes'].double().cpu().numpy()
        return cls(
            image_id,
            boxes=np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]),
            scores=instances['scores'].double().cpu().numpy(),
            category_ids=category_ids[instances['labels'].cpu().numpy()],
            masks=instances.get('masks'),
        )

    def select(self, index: np.ndarray) -> 'Detections':
        """Those at the integer positions `index`, in that order."""
        masks = None if self.masks is None else [self.masks[i] for i in index.tolist()]
        return Detections(self.image_id, self.boxes[index], self.scores[index], self.category_ids[index], masks)

    def rows(self, iou_type: str) -> np.ndarray:
        """(N, 7) float64: image id, x, y, width, height, score, category id, as hotcoco takes boxes or masks.

        hotcoco has a mask's area from the box in its row, and looks at that box for nothing else: it is one of the
        mask's area at the origin.
        """
        rows = np.empty((len(self.scores), 7))
        rows[:, 0] = self.image_id
        rows[:, 1:5] = self.boxes if iou_type == 'bbox' else (0, 0, 0, 1)
        rows[:, 5] = self.scores
        rows[:, 6] = self.category_ids
        if iou_type == 'segm':
            rows[:, 3] = rle.area(self.masks)
        return rows

    def results(self, iou_type: str) -> list[dict[str, Any]]:
        """Dicts in the official result format, of boxes (`'bbox'`) or masks (`'segm'`).

        A mask's dict carries no box: evaluators would take the box's area for the mask's.
        """
        shape_key, shapes = ('bbox', self.boxes.tolist()) if iou_type == 'bbox' else ('segmentation', self.masks)
        return [
            {'image_id': self.image_id, 'category_id': category_id, shape_key: shape, 'score': score}
            for category_id, shape, score in zip(self.category_ids.tolist(), shapes, self.scores.tolist(), strict=True)
        ]
