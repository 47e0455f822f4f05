"""Matching for those protocols that hotcoco does not know: what it stands for in a metric, on a table of matches."""
from collections.abc import Sequence
from typing import Any

import numpy as np

from .detections import Detections
from .federated_truth import FederatedTruth
from .image_overlaps import ImageOverlaps
from .match_table import MatchTable
from .table_figures import lvis_figures, pooled_figures


class TableMatcher:
    """Boxes or masks, matched batch by batch into a table; as `Matcher`, but in the caller's own thread.

    Args:
        truth: the ground truth.
        overlap: `'bbox'`, `'segm'` or `'boundary'`.
        pooled: whether the figures are those of all classes in one ranking.
        limits: of the table, see `MatchTable`.
    """

    def __init__(self, truth: FederatedTruth, overlap: str, pooled: bool, **limits: int | None):
        self._truth: FederatedTruth | None = truth
        self._overlap = overlap
        self._pooled = pooled
        self._label_of = {category_id: label for label, category_id in enumerate(truth.category_ids.tolist())}
        self.table = MatchTable(truth.counts, **limits)

    def __getstate__(self) -> dict[str, Any]:
        # In another process the table is merged and read, and no more is matched.
        return self.__dict__ | {'_truth': None}

    @classmethod
    def merged(cls, matchers: Sequence['TableMatcher']) -> 'TableMatcher':
        """What several matchers matched, as one; of an image that several saw, the first one's matches."""
        merged = cls.__new__(cls)
        merged.__dict__ |= matchers[0].__dict__ | {'table': MatchTable.merged([each.table for each in matchers])}
        return merged

    def match(
        self, images: Sequence[dict[str, Any]], targets: Sequence[dict[str, Any]], batch: Sequence[Detections]
    ) -> None:
        """Matches a batch of detections with the targets of its images. One without detections adds nothing.

        Args:
            images: records of the annotation file.
            targets: their annotations.
            batch: their detections, at most once for each image.
        """
        targets_of: dict[int, list[dict[str, Any]]] = {image['id']: [] for image in images}
        for target in targets:
            targets_of[target['image_id']].append(target)
        for detections in batch:
            of_image = self._truth.targets_among(detections.image_id, targets_of[detections.image_id])
            overlaps = ImageOverlaps(of_image, self._overlap, detections.boxes, detections.masks)
            labels = np.array([self._label_of[each] for each in detections.category_ids.tolist()], np.int64)
            matches = overlaps.match(np.arange(len(labels)), labels, detections.scores)
            self.table.add(matches, detections.places)

    def figures(self) -> dict[str, float]:
        """The figures of all matches, see `pooled_figures` and `lvis_figures`."""
        return pooled_figures(self.table) if self._pooled else lvis_figures(self.table)
