import numpy as np

from mmdet.evaluation.class_groups import ClassGroups
from mmdet.evaluation.training_instance_bins import average_precision_by_bin

FREQUENCIES = ['r', 'c', 'r', 'f', 'f']
INSTANCES = [3, 40, 9, 2000, 101]


def test_means_are_of_the_classes_with_ap():
    means = ClassGroups(FREQUENCIES).means(np.array([0.1, np.nan, 0.3, 0.8, 0.6]))
    assert list(means) == ['AP', 'APr', 'APc', 'APf']
    np.testing.assert_allclose(list(means.values()), [0.45, 0.2, np.nan, 0.7])


def test_bins_are_the_metrics():
    class_ap = np.array([0.1, np.nan, 0.3, 0.8, 0.6])
    means = ClassGroups(FREQUENCIES, INSTANCES, edges=(1, 10, 100, 1000)).means(class_ap)
    expected = average_precision_by_bin(class_ap, INSTANCES, (1, 10, 100, 1000))
    np.testing.assert_equal({name: float(means[name]) for name in expected}, expected)


def test_of_many_vectors_at_once():
    class_ap = np.random.default_rng(0).random((3, 5))
    class_ap[1] = np.nan
    groups = ClassGroups(FREQUENCIES, INSTANCES)
    together = groups.means(class_ap)
    for number, vector in enumerate(class_ap):
        np.testing.assert_equal({name: mean[number] for name, mean in together.items()}, groups.means(vector))
