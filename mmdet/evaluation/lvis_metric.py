"""The LVIS protocols: federated annotations, AP by category frequency, limits by image or by class."""
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmdet.errors import ConfigError
from mmdet.registry import METRICS

from .detections import Detections
from .federated_truth import AREA_RANGES, FederatedTruth, check_lvis_format, lvis_target
from .lvis_protocols import PROTOCOLS
from .matcher import Matcher
from .streaming_metric import StreamingMetric
from .table_matcher import TableMatcher


@METRICS.register_module()
class LVISMetric(StreamingMetric):
    """The 13 figures of the official LVIS evaluator and AP by training instances, for boxes and masks.

    Detections of a category count on an image only where the image is annotated for it: the category is
    present or among the image's `neg_category_ids`; unmatched ones of its `not_exhaustive_category_ids` are left
    out.

    Habits of the official evaluator that are kept: the best detections are chosen before anything else; of these and
    of the annotations those of zero area (empty masks) are dropped; and it knows `ignore`, but no crowds. Of equal
    scores at a class's limit those of the lower image id come first, as in a result file by ascending id.

    Args:
        ann_file: ground truth in LVIS format.
        metric: `'bbox'`, `'segm'` or both.
        protocol: which detections count, and how masks are compared.

            - `'default'`: the 300 best detections of an image.
            - `'fixed'`, AP-fixed: the 10,000 best of a class, any number on an image. The detector must give that many:
              see its `test_cfg.rcnn.max_per_img`.
            - `'pool'`, AP-pool: the same detections, all classes in one ranking. The figures are `AP-pooled-all` and
              `AP-pooled-r`, `AP-pooled-c`, `AP-pooled-f` of rare, common and frequent classes; none is of one class.
            - `'boundary'`: the 300 best of an image. Of two masks the smaller IoU counts, that of the masks or that of
              their boundaries, which are as wide as 2 % of the image's diagonal.
            - `'challenge2021'`: the 10,000 best of a class, masks as in `'boundary'`.
        dets_per_class: in the place of 10,000.
        arguments: of `StreamingMetric`. The default `prefix` is `lvis`, or `lvis_fixed`, ... of another protocol.

    Figures and errors: see `StreamingMetric`.

    Papers: Gupta et al., "LVIS: A Dataset for Large Vocabulary Instance Segmentation", CVPR 2019; Dave et al.,
    "Evaluating Large-Vocabulary Object Detectors: The Devil is in the Details", 2021 (AP-fixed, AP-pool); Cheng et al.,
    "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021.
    """

    lvis_style = True
    counts_empty = False

    def __init__(
        self,
        ann_file: str,
        metric: str | Sequence[str] = 'bbox',
        protocol: str = 'default',
        dets_per_class: int | None = None,
        **arguments: Any,
    ) -> None:
        if protocol not in PROTOCOLS:
            raise ConfigError(f'protocol {protocol!r} is not known; choose one of {", ".join(PROTOCOLS)}')
        self.protocol = PROTOCOLS[protocol]
        if dets_per_class is not None:
            if self.protocol.per_class is None:
                raise ConfigError(f'dets_per_class={dets_per_class}: protocol {protocol!r} limits no class; omit it')
            if dets_per_class < 1:
                raise ConfigError(f'dets_per_class={dets_per_class}: must be at least 1')
            self.protocol = self.protocol._replace(per_class=dets_per_class)
        if self.protocol.boundary and metric != 'segm' and list(metric) != ['segm']:
            raise ConfigError(f"metric={metric!r}: protocol {protocol!r} is of masks alone; set metric='segm'")
        self.default_prefix = 'lvis' if protocol == 'default' else f'lvis_{protocol}'
        self.figures = {name: name for name in self.protocol.figures}
        self.class_figures = not self.protocol.pooled
        self._truth: FederatedTruth | None = None
        super().__init__(ann_file, metric, **arguments)

    def check_ground_truth(self) -> None:
        """Raises AnnotationError where the file is not in LVIS format."""
        check_lvis_format(self.ground_truth)

    def evaluated_target(self, annotation: dict[str, Any]) -> dict[str, Any] | None:
        """The annotation as a `lvis_target`."""
        # hotcoco's own mark of an ignored one is `iscrowd`, which would also match by another overlap than IoU.
        return lvis_target(annotation)

    def countable_detections(self, detections: Detections, targets: list[dict[str, Any]]) -> Detections:
        """Under a limit of images, of the best those of categories that the image is annotated for.

        Under a limit of classes all of those with an AP: what the image is not annotated for takes up a place, too.
        """
        per_image = self.protocol.per_image
        if per_image is None:
            return detections if self.protocol.pooled else super().countable_detections(detections, targets)
        if len(detections.scores) > per_image:
            detections = detections.select(np.argsort(-detections.scores, kind='stable')[:per_image])
        annotated = {target['category_id'] for target in targets}
        annotated.update(self.ground_truth.images[detections.image_id]['neg_category_ids'])
        return detections.of_categories(annotated & self.evaluated_categories)

    def new_matcher(self, metric: str) -> Matcher | TableMatcher:
        """hotcoco's for the default protocol, which it knows."""
        if self.protocol == PROTOCOLS['default']:
            return super().new_matcher(metric)
        if self._truth is None or self._truth.category_ids.tolist() != list(self.categories):
            self._truth = FederatedTruth(self.ground_truth, list(self.categories), AREA_RANGES)
        return TableMatcher(
            self._truth,
            overlap='boundary' if self.protocol.boundary else metric,
            pooled=self.protocol.pooled,
            per_image=self.protocol.per_image,
            per_class=self.protocol.per_class,
        )
