"""Whether scores mean what they say: expected calibration error of detections.

Papers: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017 (ECE); Kueppers et al., "Multivariate
Confidence Calibration for Object Detection", CVPR Workshops 2020 (of detections: confidence against precision).
"""
from typing import NamedTuple

import numpy as np

from .class_groups import ClassGroups
from .match_table import MatchTable

LOWEST_SCORE = 0.05
SCORE_BINS = 20


class CalibrationError(NamedTuple):
    """Of B score bins of equal width from 0 to 1.

    Attributes:
        error: the mean of |precision - mean score| over the bins, each with the share of detections that are in it; NaN
            without detections.
        scores: (B,) float64, mean score of a bin's detections, NaN of an empty bin.
        precisions: (B,) float64, share of a bin's detections that are right, NaN of an empty bin.
        detections: (B,) int64, how many there are.
    """

    error: float
    scores: np.ndarray
    precisions: np.ndarray
    detections: np.ndarray


def calibration_error(
    table: MatchTable, groups: ClassGroups, lowest_score: float = LOWEST_SCORE, score_bins: int = SCORE_BINS
) -> dict[str, CalibrationError]:
    """Expected calibration error of detections, of all classes and of each group of them.

    A detection's confidence is its score, and it is right where it matches a target at IoU 0.5. Detections that are
    neither right nor wrong, and those of classes that an image is not annotated for, are left out.

    Args:
        table: of the detections.
        groups: of the classes.
        lowest_score: detections with a lower score are left out. LVIS's protocol has 300 detections of any score on an
            image. Nearly all are wrong and say so, with scores near 0; they would make any detector look well
            calibrated. From 0.05 on, the customary cut of detectors outside LVIS, a user sees them.
        score_bins: B.

    Returns:
        'ECE' of all classes, 'ECEr', 'ECEc', 'ECEf' of rare, common and frequent ones, 'ECE1', ... of the bins of
        training instances.
    """
    rows = table.rows
    area = table.counts.area_number('all')
    at_lowest_threshold = np.uint16(1)
    judged = (rows.ignored[:, area] & at_lowest_threshold == 0) & (rows.scores >= lowest_score)
    right = (rows.matched[:, area] & at_lowest_threshold).astype(bool)
    errors = {}
    for name, members in groups.members.items():
        own = judged & members[rows.labels]
        errors[name.replace('AP', 'ECE')] = _error_of(rows.scores[own], right[own], score_bins)
    return errors


def _error_of(scores: np.ndarray, right: np.ndarray, score_bins: int) -> CalibrationError:
    number = np.minimum((scores * score_bins).astype(np.int64), score_bins - 1)
    detections = np.bincount(number, minlength=score_bins)
    with np.errstate(invalid='ignore'):
        mean_scores = np.bincount(number, scores, minlength=score_bins) / detections
        precisions = np.bincount(number, right, minlength=score_bins) / detections
        error = np.nansum(detections * np.abs(precisions - mean_scores)) / detections.sum()
    return CalibrationError(float(error), mean_scores, precisions, detections)
