"""Evaluation of detectors whose boxes are mmdetection 1.x's."""
from collections.abc import Mapping
from typing import Any

from mmdet.registry import METRICS

from .coco_metric import CocoMetric
from .detections import Detections
from .lvis_metric import LVISMetric


class InclusiveBoxes:
    """A detected box is as wide as x2 - x1 + 1, in the figures and in result files; ground truth is as annotated."""

    def detections_of(self, image_id: int, instances: Mapping[str, Any]) -> Detections:
        """One image's detections, as the detector gives them, in the categories of the protocol."""
        detections = super().detections_of(image_id, instances)
        boxes = detections.boxes.copy()
        boxes[:, 2:] += 1
        return detections._replace(boxes=boxes)


@METRICS.register_module()
class LegacyLVISMetric(InclusiveBoxes, LVISMetric):
    """`LVISMetric` of mmdetection 1.x's boxes."""


@METRICS.register_module()
class LegacyCocoMetric(InclusiveBoxes, CocoMetric):
    """`CocoMetric` of mmdetection 1.x's boxes."""
