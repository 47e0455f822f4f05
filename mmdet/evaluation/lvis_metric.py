"""The LVIS protocol: federated annotations, 300 detections an image, AP by category frequency."""
from typing import Any

import numpy as np

from mmdet.registry import METRICS

from .detections import Detections
from .federated_truth import check_lvis_format, lvis_target
from .streaming_metric import StreamingMetric

DETECTIONS_PER_IMAGE = 300


@METRICS.register_module()
class LVISMetric(StreamingMetric):
    """The 13 figures of the official LVIS evaluator and AP by training instances, for boxes and masks.

    Detections of a category count on an image only where the image is annotated for it: the category is
    present or among the image's `neg_category_ids`; unmatched ones of its `not_exhaustive_category_ids` are left
    out. Arguments, figures and errors: see `StreamingMetric`.

    Habits of the official evaluator that are kept: the 300 best detections of an image are chosen before anything
    else; of these and of the annotations those of zero area (empty masks) are dropped; and it knows `ignore`, but
    no crowds.

    Paper: Gupta et al., "LVIS: A Dataset for Large Vocabulary Instance Segmentation", CVPR 2019.
    """

    default_prefix = 'lvis'
    lvis_style = True
    counts_empty = False
    figures = {
        name: name
        for name in (
            'AP', 'AP50', 'AP75', 'APs', 'APm', 'APl', 'APr', 'APc', 'APf', 'AR@300', 'ARs@300', 'ARm@300', 'ARl@300'
        )
    }  # fmt: skip

    def check_ground_truth(self) -> None:
        """Raises AnnotationError where the file is not in LVIS format."""
        check_lvis_format(self.ground_truth)

    def evaluated_target(self, annotation: dict[str, Any]) -> dict[str, Any] | None:
        """The annotation as a `lvis_target`."""
        # hotcoco's own mark of an ignored one is `iscrowd`, which would also match by another overlap than IoU.
        return lvis_target(annotation)

    def countable_detections(self, detections: Detections, targets: list[dict[str, Any]]) -> Detections:
        """Of the 300 best those of categories the image is annotated for."""
        if len(detections.scores) > DETECTIONS_PER_IMAGE:
            detections = detections.select(np.argsort(-detections.scores, kind='stable')[:DETECTIONS_PER_IMAGE])
        annotated = {target['category_id'] for target in targets}
        annotated.update(self.ground_truth.images[detections.image_id]['neg_category_ids'])
        return detections.of_categories(annotated & self.evaluated_categories)
