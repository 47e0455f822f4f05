"""Recall of boxes as proposals: whatever their class, how many of the annotated ones the best few find."""
from collections.abc import Sequence
from typing import Any

import numpy as np
from hotcoco import Params, StreamingEval

from .detections import Detections
from .matcher import Matcher

PROPOSAL = 'proposal'
PROPOSALS_PER_IMAGE = [100, 300, 1000]
# mmdetection's names of the figures -> what hotcoco calls them, whatever the numbers of proposals are.
PROPOSAL_FIGURES = {
    'AR@100': 'AR1', 'AR@300': 'AR10', 'AR@1000': 'AR100', 'AR_s@1000': 'ARs', 'AR_m@1000': 'ARm', 'AR_l@1000': 'ARl'
}  # fmt: skip
_ANY_CLASS = 1


def proposal_matcher() -> Matcher:
    """Matches what `as_proposals` returns."""
    params = Params('bbox')
    params.max_dets = PROPOSALS_PER_IMAGE
    return Matcher(StreamingEval([dict(id=_ANY_CLASS, name='any')], iou_type='bbox', params=params), 'bbox', True)


def as_proposals(
    annotations: Sequence[dict[str, Any]], batch: Sequence[Detections]
) -> tuple[list[dict[str, Any]], list[Detections]]:
    """Annotations and detections of all classes as those of one.

    Like the official evaluator, class after class: where scores or overlaps are equal, the first comes first.
    """
    in_order = sorted(annotations, key=lambda annotation: annotation['category_id'])
    targets = [annotation | dict(category_id=_ANY_CLASS) for annotation in in_order]
    by_class = [each.select(np.argsort(each.category_ids, kind='stable')) for each in batch]
    return targets, [each._replace(category_ids=np.full_like(each.category_ids, _ANY_CLASS)) for each in by_class]
