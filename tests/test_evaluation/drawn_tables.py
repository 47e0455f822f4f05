"""Small tables of matched detections for hypothesis to draw, and figures worked out from them in the plainest way."""
import numpy as np
from hypothesis import strategies as st

from mmdet.evaluation.federated_truth import TruthCounts
from mmdet.evaluation.image_overlaps import Matches
from mmdet.evaluation.match_table import MatchTable

IMAGE_IDS = np.array([3, 8, 11, 40])
CATEGORY_IDS = np.array([7, 2, 5, 9])  # labels need not be in the order of ids
FREQUENCIES = np.array(['r', 'c', 'c', 'f'])
ALL_BITS = 1023

# Label, score in tenths (so that many are equal), and one of: right at some thresholds, ignored, wrong.
DETECTION = st.tuples(
    st.integers(0, 3), st.integers(0, 10), st.sampled_from([(1023, 0), (15, 0), (3, 1020), (0, 1023), (0, 0), (0, 0)])
)
IMAGES = st.lists(st.lists(DETECTION, max_size=6), min_size=4, max_size=4)
TARGETS = st.lists(st.integers(0, 3), min_size=16, max_size=16)
WEIGHTS = st.lists(st.integers(0, 3), min_size=4, max_size=4).map(np.array)


def counts_of(targets):
    """Of 4 images x 4 classes, given in one list."""
    targets = np.array(targets)
    images, labels = np.divmod(np.flatnonzero(targets), 4)
    return TruthCounts(
        IMAGE_IDS, CATEGORY_IDS, FREQUENCIES, np.array(['all']), images, labels, targets[targets > 0][:, None]
    )


def matches_of(image, detections):
    """The matches of one image, whose detections are given in the order of detection."""
    order = sorted(range(len(detections)), key=lambda i: -detections[i][1])
    labels, tenths, bits = zip(*(detections[i] for i in order), strict=True) if detections else ((), (), ())
    matched, ignored = np.array(bits, np.uint16).reshape(-1, 2).T
    return Matches(
        image,
        np.array(labels, np.int64),
        np.array(tenths) / 10,
        matched[:, None],
        ignored[:, None],
        np.array(order, np.int64),
    )


def table_of(targets, images, order=range(4), **limits):
    """A table filled with some images in some order."""
    table = MatchTable(counts_of(targets), **limits)
    for image in order:
        table.add(matches_of(image, images[image]))
    return table


def plain_ap(ranked, positives):
    """AP over thresholds and recalls of (matched bits, ignored bits), best first; NaN without positives."""
    if positives == 0:
        return np.nan
    precisions = []
    for bit in (1 << threshold for threshold in range(10)):
        right = wrong = 0
        points = []
        for matched, ignored in ranked:
            right += bool(matched & bit)
            wrong += not matched & bit and not ignored & bit
            points.append((right / positives, right / (right + wrong + np.spacing(1))))
        for recall in np.linspace(0, 1, 101):
            precisions.append(max((p for r, p in points if r >= recall), default=0))
    return np.mean(precisions)


def plain_ranking(images, labels, per_image=None, per_class=None):
    """The bits of all detections of some classes, best first, under limits."""
    rows = []
    for image, detections in enumerate(images):
        own = [(-tenths, image, place, label, bits) for place, (label, tenths, bits) in enumerate(detections)]
        rows += sorted(own)[:per_image]
    kept = [row for label in range(4) for row in sorted(row for row in rows if row[3] == label)[:per_class]]
    chosen = [row for row in kept if row[3] in labels]
    # Equal scores: by image, by category id within it, and as they were detected.
    return [row[4] for row in sorted(chosen, key=lambda row: (*row[:2], CATEGORY_IDS[row[3]], row[2]))]
