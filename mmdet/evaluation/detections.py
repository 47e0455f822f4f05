"""The detections of one image as evaluators and result files want them."""
from collections.abc import Container, Mapping
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
        places: (N,) int64, their places in a result file, where they come from one, or None.
    """

    image_id: int
    boxes: np.ndarray
    scores: np.ndarray
    category_ids: np.ndarray
    masks: list[dict[str, Any]] | None
    places: np.ndarray | None = None

    @classmethod
    def from_instances(cls, image_id: int, instances: Mapping[str, Any], category_ids: np.ndarray) -> 'Detections':
        """Takes over a detector's `bboxes` (N, 4) xyxy, `scores` and `labels` (N,), and its `masks` if it has any.

        Args:
            category_ids: (C,) label -> category id.
        """
        boxes = instances['bboxes'].double().cpu().numpy().copy()
        boxes[:, 2:] -= boxes[:, :2]
        return cls(
            image_id,
            boxes=boxes,
            scores=instances['scores'].double().cpu().numpy(),
            category_ids=category_ids[instances['labels'].cpu().numpy()],
            masks=instances.get('masks'),
        )

    def select(self, index: np.ndarray) -> 'Detections':
        """Those at the integer positions `index`, in that order."""
        masks = None if self.masks is None else [self.masks[i] for i in index.tolist()]
        places = None if self.places is None else self.places[index]
        return Detections(self.image_id, self.boxes[index], self.scores[index], self.category_ids[index], masks, places)

    def of_categories(self, category_ids: Container[int]) -> 'Detections':
        """Those of some categories, in the same order."""
        return self.select(np.flatnonzero([each in category_ids for each in self.category_ids.tolist()]))

    def results(self, iou_type: str) -> list[dict[str, Any]]:
        """Dicts in the official result format, of boxes (`'bbox'`) or masks (`'segm'`).

        A mask's dict carries no box: evaluators would take the box's area for the mask's.
        """
        shape_key, shapes = ('bbox', self.boxes.tolist()) if iou_type == 'bbox' else ('segmentation', self.masks)
        return [
            {'image_id': self.image_id, 'category_id': category_id, shape_key: shape, 'score': score}
            for category_id, shape, score in zip(self.category_ids.tolist(), shapes, self.scores.tolist(), strict=True)
        ]
