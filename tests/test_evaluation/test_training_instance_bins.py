import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet.evaluation import average_precision_by_bin, training_instance_bins


def brute_force(class_ap, instance_count, edges):
    """Straight from the definition, with Python's own arithmetic."""
    means = []
    for lower, upper in zip(edges, [*edges[1:], math.inf], strict=True):
        known = [
            ap for ap, count in zip(class_ap, instance_count, strict=True) if lower <= count < upper and ap == ap
        ]
        means.append(math.fsum(known) / len(known) if known else math.nan)
    present = [mean for mean in means if mean == mean]
    return means, math.fsum(present) / len(present) if present else math.nan


@settings(deadline=None)
@given(
    classes=st.lists(
        st.tuples(st.one_of(st.floats(0, 1), st.just(math.nan)), st.integers(0, 12_000)), min_size=0, max_size=40
    ),
    edges=st.sampled_from([(1, 10, 100, 1000), (1, 20, 400, 8000), (0, 5), (7,)]),
)
def test_means_of_bins_are_those_of_the_definition(classes, edges):
    class_ap, counts = zip(*classes, strict=True) if classes else ((), ())
    means, mean_of_bins = brute_force(class_ap, counts, edges)
    figures = average_precision_by_bin(class_ap, counts, edges)
    assert list(figures) == [f'AP{i + 1}' for i in range(len(edges))] + ['bAP']
    np.testing.assert_allclose(list(figures.values()), [*means, mean_of_bins], atol=1e-12)


def test_a_bin_holds_its_lower_edge_and_not_its_upper_one():
    counts = [0, 1, 9, 10, 99, 100, 999, 1000, 10**7]
    assert training_instance_bins(counts, (1, 10, 100, 1000)).tolist() == [-1, 0, 0, 1, 1, 2, 2, 3, 3]


def test_edges_must_ascend():
    for edges in ((), (1, 1), (10, 1)):
        with pytest.raises(ValueError, match='ascend'):
            training_instance_bins([1], edges)
