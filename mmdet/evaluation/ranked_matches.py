"""Precision over recall of matched detections in order of their scores, for any weights of the images.

What is sorted and what depends on the IoU threshold alone is worked out once. A vector of weights then costs two sums
over all detections, and a few steps over those that are right or ignored at some threshold, which are few.
"""
import numpy as np

from .greedy_matching import EVERY_THRESHOLD, IOU_THRESHOLDS

RECALL_THRESHOLDS = np.linspace(0, 1, 101)


class RankedMatches:
    """N matched detections in G groups (the classes, say), each of which has a curve at each of T IoU thresholds.

    Args:
        groups: (N,) ascending.
        images: (N,) each detection's image, by its number. Within a group the best detection comes first.
        matched: (N,) uint16, bits of the thresholds at which a detection is right.
        ignored: (N,) uint16, bits of the thresholds at which it is neither right nor wrong.
        num_groups: G.
    """

    def __init__(
        self, groups: np.ndarray, images: np.ndarray, matched: np.ndarray, ignored: np.ndarray, num_groups: int
    ):
        counts = ignored != EVERY_THRESHOLD
        groups, self._images, matched, ignored = (each[counts] for each in (groups, images, matched, ignored))
        self._num_groups = num_groups
        # Most detections are wrong at every threshold. Of these only sums are needed.
        self._wrong = (matched | ignored) == 0
        self._rest = np.flatnonzero(~self._wrong)
        self._first = np.searchsorted(groups, np.arange(num_groups + 1))
        self._first_of_rest = np.searchsorted(self._rest, self._first)
        bits = np.arange(len(IOU_THRESHOLDS))[:, None]
        self._right = (matched[self._rest] >> bits & 1).astype(bool)  # (T, R)
        self._counts = ~(ignored[self._rest] >> bits & 1).astype(bool)
        # The points of the curves: recall rises at the right detections, and precision is highest there.
        self._point_threshold, self._point_row = np.nonzero(self._right)
        self._point_group = groups[self._rest][self._point_row]
        self._curve = self._point_threshold * num_groups + self._point_group
        self._starts_curve = np.diff(self._curve, prepend=-1) > 0

    def curves(self, positives: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Average precision over 101 recalls, and the highest recall.

        Args:
            positives: (G,) targets of each group, those of an image times its weight.
            weights: (I,) non-negative integers, how often each image counts; None is once for each.

        Returns:
            Two (G, T) float64, NaN of a group without targets.
        """
        row_weights = np.ones(len(self._images)) if weights is None else weights[self._images].astype(np.float64)
        rest = row_weights[self._rest]
        right = _sums_before(self._right * rest)  # (T, R + 1)
        counted = _sums_before(self._counts * rest)
        wrong = _sums_before(row_weights * self._wrong)
        group = self._point_group
        row, start = self._point_row, self._first_of_rest[group]
        threshold = self._point_threshold
        found = right[threshold, row + 1] - right[threshold, start]
        detected = counted[threshold, row + 1] - counted[threshold, start]
        detected += wrong[self._rest[row]] - wrong[self._first[group]]
        with np.errstate(divide='ignore', invalid='ignore'):
            precision = found / (detected + np.spacing(1))
            recalls = np.searchsorted(RECALL_THRESHOLDS, found / positives[group], side='right')
            highest = right[:, self._first_of_rest]
            recall = np.where(positives > 0, np.diff(highest, axis=1) / positives, np.nan)
        # A point stands for the recalls that none before it has reached.
        share = recalls - np.where(self._starts_curve, 0, np.roll(recalls, 1))
        summed = np.bincount(
            self._curve, share * self._highest_from_here(precision), minlength=len(IOU_THRESHOLDS) * self._num_groups
        )
        average = summed.reshape(len(IOU_THRESHOLDS), -1) / len(RECALL_THRESHOLDS)
        return np.where(positives > 0, average, np.nan).T, recall.T

    def _highest_from_here(self, precision: np.ndarray) -> np.ndarray:
        """The highest precision at a point or at any later one of its curve."""
        highest = precision.copy()
        step = 1
        while True:
            # Each point looks twice as far as before.
            same = self._curve[step:] == self._curve[: max(len(highest) - step, 0)]
            if not same.any():
                return highest
            highest[:-step] = np.where(same, np.maximum(highest[:-step], highest[step:]), highest[:-step])
            step *= 2


def _sums_before(values: np.ndarray) -> np.ndarray:
    """(..., N + 1): the sum of the values before each place of the last axis, and of all."""
    sums = np.zeros((*values.shape[:-1], values.shape[-1] + 1))
    np.cumsum(values, axis=-1, out=sums[..., 1:])
    return sums
