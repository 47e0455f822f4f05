import numpy as np
import pytest
from hypothesis import given, settings

from mmdet.evaluation.class_groups import ClassGroups
from mmdet.evaluation.federated_truth import TruthCounts
from mmdet.evaluation.match_table import MatchTable
from mmdet.evaluation.resampling import bootstrap, resampled_images

from .drawn_tables import FREQUENCIES, IMAGES, TARGETS, matches_of, plain_ap, plain_ranking, table_of

GROUPS = ClassGroups(FREQUENCIES, [2, 20, 200, 2000])


@given(TARGETS, IMAGES)
@settings(max_examples=15)
def test_intervals_are_quantiles_over_images_drawn_with_replacement(targets, images):
    images = [[(label, 10 * tenths + place, bits) for place, (label, tenths, bits) in enumerate(of)] for of in images]
    intervals = bootstrap(table_of(targets, images), GROUPS, replicates=5, seed=3)
    targets = np.array(targets).reshape(4, 4)
    figures = []
    for weights in resampled_images(4, 5, seed=3):
        drawn = np.repeat(np.arange(4), weights)
        rankings = [plain_ranking([images[image] for image in drawn], [label]) for label in range(4)]
        positives = targets[drawn].sum(axis=0)
        figures.append(GROUPS.means(np.array([plain_ap(*each) for each in zip(rankings, positives, strict=True)])))
    assert list(intervals) == ['AP', 'APr', 'APc', 'APf', 'AP1', 'AP2', 'AP3', 'AP4', 'bAP']
    for name, interval in intervals.items():
        values = np.array([each[name] for each in figures])
        known = values[~np.isnan(values)]
        expected = np.quantile(known, [0.025, 0.975]) if len(known) else [np.nan, np.nan]
        np.testing.assert_allclose(interval, expected, atol=1e-12)


def large_table(seed, images=80, classes=6):
    """Every class once on every image, found with a chance that is the image's, beside wrong detections."""
    rng = np.random.default_rng(seed)
    every = np.arange(images * classes)
    counts = TruthCounts(
        np.arange(images),
        np.arange(classes),
        np.array(list('rccfff'))[:classes],
        np.array(['all']),
        every // classes,
        every % classes,
        np.ones((len(every), 1), int),
    )
    table = MatchTable(counts)
    easy = np.random.default_rng(9).random(images)
    for image in range(images):
        right = [(label, rng.integers(500, 1000), (1023, 0)) for label in range(classes) if rng.random() < easy[image]]
        wrong = [(rng.integers(classes), rng.integers(1000), (0, 0)) for _ in range(4)]
        table.add(matches_of(image, right + wrong))
    return table


def test_an_interval_holds_the_figure_and_narrows_with_its_coverage():
    table = large_table(seed=0)
    groups = ClassGroups(table.counts.frequencies)
    figures = groups.means(table.average_precision())
    intervals, narrow = (bootstrap(table, groups, coverage=coverage) for coverage in (0.95, 0.5))
    for name, figure in figures.items():
        assert intervals[name].low < narrow[name].low < figure < narrow[name].high < intervals[name].high


def test_tables_are_compared_on_the_same_images():
    table, other = large_table(seed=0), large_table(seed=1)
    groups = ClassGroups(table.counts.frequencies)
    assert set(bootstrap(table, groups, baseline=table, replicates=5).values()) == {(0, 0)}
    difference = bootstrap(table, groups, baseline=other)['AP']
    alone, others = bootstrap(table, groups)['AP'], bootstrap(other, groups)['AP']
    figures = [groups.means(each.average_precision())['AP'] for each in (table, other)]
    assert difference.low < figures[0] - figures[1] < difference.high
    # What is hard about an image is hard for both.
    assert difference.high - difference.low < (alone.high - alone.low) + (others.high - others.low)
    there, back = bootstrap(table, groups, baseline=other), bootstrap(other, groups, baseline=table)
    assert there['APr'] == pytest.approx((-back['APr'].high, -back['APr'].low))


def test_the_seed_says_which_images_are_drawn():
    table = large_table(seed=0)
    groups = ClassGroups(table.counts.frequencies)
    assert bootstrap(table, groups, seed=1) == bootstrap(table, groups, seed=1) != bootstrap(table, groups, seed=2)
    assert (resampled_images(80, 7, seed=0).sum(axis=1) == 80).all()


def test_tables_of_other_images_are_refused():
    table, other = large_table(seed=0), large_table(seed=0, images=79)
    with pytest.raises(ValueError, match='other images or classes'):
        bootstrap(table, ClassGroups(table.counts.frequencies), baseline=other)
