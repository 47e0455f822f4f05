"""How sure a figure is, given so many images: bootstrap intervals over the images of an evaluation set.

Reference: Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 1979 (percentile method).
"""
from typing import NamedTuple

import numpy as np

from .class_groups import ClassGroups
from .match_table import MatchTable


class Interval(NamedTuple):
    """From a low to a high end, both in the figure's unit; NaN where no replicate has the figure."""

    low: float
    high: float


def bootstrap(
    table: MatchTable,
    groups: ClassGroups,
    baseline: MatchTable | None = None,
    replicates: int = 200,
    seed: int = 0,
    coverage: float = 0.95,
) -> dict[str, Interval]:
    """Percentile intervals of the means over groups of classes, or of their differences from another table's.

    A replicate is as many images as there are, drawn with replacement; a class without a target on them has no AP in
    it. Two tables see the same images in each replicate, so an interval of differences is that of paired samples.

    Args:
        table: of the detections.
        groups: of the classes; the figures are those of `ClassGroups.means`.
        baseline: what is subtracted, a table of the same images and classes; None: nothing.
        replicates: how many.
        seed: of the draws.
        coverage: share of the replicates inside an interval.

    Returns:
        The names of the figures -> intervals, in 0..1 (differences in -1..1).

    Raises:
        ValueError: tables of other images or classes.
    """
    image_ids = table.counts.image_ids
    if baseline is not None and not (
        np.array_equal(baseline.counts.image_ids, image_ids)
        and np.array_equal(baseline.counts.category_ids, table.counts.category_ids)
    ):
        raise ValueError('two tables of other images or classes have no replicates in common')
    weights = resampled_images(len(image_ids), replicates, seed)
    figures = groups.means(table.average_precision(weights))
    if baseline is not None:
        subtracted = groups.means(baseline.average_precision(weights))
        figures = {name: values - subtracted[name] for name, values in figures.items()}
    ends = (1 - coverage) / 2, (1 + coverage) / 2
    return {name: _interval(values[~np.isnan(values)], ends) for name, values in figures.items()}


def resampled_images(num_images: int, replicates: int, seed: int) -> np.ndarray:
    """(W, I) int64: how often each image is drawn in each replicate."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(num_images, np.full(num_images, 1 / num_images), size=replicates)


def _interval(values: np.ndarray, ends: tuple[float, float]) -> Interval:
    return Interval(*np.quantile(values, ends).tolist()) if len(values) else Interval(np.nan, np.nan)
