"""AP over bins of classes that have similarly many training instances (SimCal's AP1..AP4 and their mean, bAP)."""
from collections.abc import Sequence

import numpy as np


def training_instance_bins(instance_count: Sequence[int], edges: Sequence[int]) -> np.ndarray:
    """The bin of every class.

    Args:
        instance_count: (C,) training instances of each class.
        edges: (B,) ascending lower edges; bin b is [edges[b], edges[b + 1]), the last one is open above.

    Returns:
        (C,) int64 in 0..B-1; -1 for a class below the first edge.
    """
    edges = np.asarray(edges)
    if len(edges) == 0 or (np.diff(edges) <= 0).any():
        raise ValueError(f'bin edges must ascend: {edges.tolist()}')
    return np.searchsorted(edges, np.asarray(instance_count), side='right') - 1


def average_precision_by_bin(
    class_ap: Sequence[float], instance_count: Sequence[int], edges: Sequence[int]
) -> dict[str, float]:
    """Mean AP of every bin and the mean of the bins.

    A class that does not occur in the evaluation set has no AP and counts in no bin. A bin without a
    class that counts is NaN, and bAP is the mean over the other bins (NaN where there is none).

    Args:
        class_ap: (C,) AP of each class, NaN for a class that does not occur in the evaluation set.
        instance_count: (C,) training instances of each class.
        edges: (B,) ascending lower edges of the bins.

    Returns:
        `{'AP1': ..., ..., 'AP<B>': ..., 'bAP': ...}` in the unit of `class_ap`.
    """
    class_ap = np.asarray(class_ap, dtype=np.float64)
    bins = training_instance_bins(instance_count, edges)
    means = [mean_of_known(class_ap[bins == index]) for index in range(len(edges))]
    return {f'AP{index}': mean for index, mean in enumerate(means, start=1)} | {'bAP': mean_of_known(np.array(means))}


def mean_of_known(values: np.ndarray) -> float:
    """The mean of those of (N,) values that are not NaN, NaN where there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float('nan')
