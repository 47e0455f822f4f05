"""The detections of one image as evaluators and result files want them."""
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


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
        x1, y1, x2, y2 = instances['bboxes'].cpu().double().numpy().T
        return cls(
            image_id,
            boxes=np.column_stack([x1, y1, x2 - x1, y2 - y1]),
            scores=instances['scores'].cpu().double().numpy(),
            category_ids=category_ids[instances['labels'].cpu().numpy()],
            masks=instances.get('masks'),
        )

    def select(self, index: np.ndarray) -> 'Detections':
        """Those at the integer positions `index`, in that order."""
        masks = None if self.masks is None else [self.masks[i] for i in index]
        return Detections(self.image_id, self.boxes[index], self.scores[index], self.category_ids[index], masks)

    def box_rows(self) -> np.ndarray:
        """(N, 7) float64: image id, x, y, width, height, score, category id."""
        image_ids = np.full(len(self.scores), self.image_id)
        return np.column_stack([image_ids, self.boxes, self.scores, self.category_ids])

    def results(self, iou_type: str) -> list[dict[str, Any]]:
        """Dicts in the official result format, of boxes (`'bbox'`) or masks (`'segm'`).

        A mask's dict carries no box: evaluators would take the box's area for the mask's.
        """
        shape_key, shapes = ('bbox', self.boxes.tolist()) if iou_type == 'bbox' else ('segmentation', self.masks)
        return [
            {'image_id': self.image_id, 'category_id': category_id, shape_key: shape, 'score': score}
            for category_id, shape, score in zip(self.category_ids.tolist(), shapes, self.scores.tolist(), strict=True)
        ]
