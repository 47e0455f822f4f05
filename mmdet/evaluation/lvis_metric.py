"""The LVIS protocol: federated annotations, 300 detections an image, AP by category frequency."""
from typing import Any

import numpy as np

from mmdet.errors import AnnotationError
from mmdet.registry import METRICS

from .detections import Detections
from .streaming_metric import StreamingMetric

DETECTIONS_PER_IMAGE = 300
OUTSIDE_EVERY_AREA_RANGE = 1e11  # the ranges end at 1e10


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
        path = self.ground_truth.path
        for category in self.ground_truth.categories.values():
            if category.get('frequency') not in ('r', 'c', 'f'):
                raise AnnotationError(
                    f"{path}: category {category['id']} has no 'frequency' r, c or f, so this is not LVIS format; "
                    f'convert it with tools/dataset_converters/coco2lvis.py or evaluate with CocoMetric'
                )
        for image in self.ground_truth.images.values():
            for key in ('neg_category_ids', 'not_exhaustive_category_ids'):
                if key not in image:
                    raise AnnotationError(
                        f"{path}: image {image['id']} has no '{key}', so this is not LVIS format; convert it with "
                        f'tools/dataset_converters/coco2lvis.py or evaluate with CocoMetric'
                    )

    def evaluated_target(self, annotation: dict[str, Any]) -> dict[str, Any] | None:
        """Leaves out an annotation of zero area, and marks an ignored one in the way hotcoco's LVIS protocol knows."""
        if annotation['area'] <= 0:
            return None
        target = {key: value for key, value in annotation.items() if key not in ('iscrowd', 'ignore')}
        if annotation.get('ignore'):
            # hotcoco's own mark is `iscrowd`, which would also match by another overlap than IoU.
            target['area'] = OUTSIDE_EVERY_AREA_RANGE
        return target

    def countable_detections(self, detections: Detections, targets: list[dict[str, Any]]) -> Detections:
        """Of the 300 best those of categories the image is annotated for."""
        if len(detections.scores) > DETECTIONS_PER_IMAGE:
            detections = detections.select(np.argsort(-detections.scores, kind='stable')[:DETECTIONS_PER_IMAGE])
        annotated = {target['category_id'] for target in targets}
        annotated.update(self.ground_truth.images[detections.image_id]['neg_category_ids'])
        return detections.of_categories(annotated & self.evaluated_categories)
