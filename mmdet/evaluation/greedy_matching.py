"""Which detections of a class find a target on one image, at every IoU threshold and in every area range at once."""
import numpy as np

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
EVERY_THRESHOLD = np.uint16((1 << len(IOU_THRESHOLDS)) - 1)
"""The bits of all thresholds: bit t is that of the t-th threshold."""

_BITS = 1 << np.arange(len(IOU_THRESHOLDS))


def greedy_matches(iou: np.ndarray, ignored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gives each detection in turn the free target it overlaps most, if that is enough.

    Ignored targets are tried last, and only where no other one is free and overlapped enough. Of equal overlaps the
    later target wins.

    Args:
        iou: (N, G) float64, of detections, best first, and targets, in the annotation file's order.
        ignored: (G, A) bool, targets that do not count in each of A area ranges.

    Returns:
        (N, A) uint16 bits of the thresholds at which a detection has a target, and of those at which that is an ignored
        one.
    """
    if iou.shape[1] == 1:
        return _matches_of_one_target(iou[:, 0], ignored[0])
    matched = np.zeros((len(iou), ignored.shape[1]), np.uint16)
    to_ignored = np.zeros_like(matched)
    counts = ~ignored.T[:, None]  # (A, 1, G)
    free = np.ones((ignored.shape[1], len(IOU_THRESHOLDS), iou.shape[1]), bool)
    area, threshold = np.indices(free.shape[:2])
    # Greater for a greater overlap and, of equal ones, for a later target.
    ranks = np.argsort(np.argsort(iou, axis=1, kind='stable'), axis=1) + 1
    preference = ranks[:, None, None] + iou.shape[1] * counts  # (N, A, 1, G)
    enough = iou[:, None] >= IOU_THRESHOLDS[:, None]  # (N, T, G)
    for detection in np.flatnonzero(enough[:, 0].any(axis=1)).tolist():
        able = free & enough[detection]
        choice = (able * preference[detection]).argmax(axis=2)
        found = able[area, threshold, choice]
        free[area, threshold, choice] &= ~found
        matched[detection] = found @ _BITS
        to_ignored[detection] = (found & ignored.T[area, choice]) @ _BITS
    return matched, to_ignored


def _matches_of_one_target(iou: np.ndarray, ignored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The target is the first detection's that overlaps it enough, whether it counts or not."""
    enough = iou[:, None] >= IOU_THRESHOLDS
    first = enough & (np.cumsum(enough, axis=0) == 1)
    matched = np.repeat((first @ _BITS).astype(np.uint16)[:, None], len(ignored), axis=1)
    return matched, matched * ignored
