"""A table of matched detections gives the official figures, whatever the way it was filled."""
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdet.errors import UserError
from mmdet.evaluation import match_table
from mmdet.evaluation.match_table import MatchTable

from .drawn_tables import (
    CATEGORY_IDS,
    FREQUENCIES,
    IMAGES,
    TARGETS,
    WEIGHTS,
    counts_of,
    matches_of,
    plain_ap,
    plain_ranking,
    table_of,
)

LIMITS = st.sampled_from([dict(), dict(per_image=2), dict(per_image=None, per_class=3), dict(per_image=3, per_class=2)])


def assert_same_table(table, other):
    weights = np.array([2, 0, 1, 5])
    np.testing.assert_equal(table.average_precision(), other.average_precision())
    np.testing.assert_equal(table.average_precision(weights), other.average_precision(weights))
    np.testing.assert_equal(table.curves()[1], other.curves()[1])
    np.testing.assert_equal(table.pooled_average_precision(), other.pooled_average_precision())


@given(TARGETS, IMAGES, LIMITS)
def test_figures_are_those_of_the_definition(targets, images, limits):
    table = table_of(targets, images, **limits)
    positives = np.array(targets).reshape(4, 4).sum(axis=0)
    limits = dict(per_image=300) | limits
    for label, ap in enumerate(table.average_precision()):
        np.testing.assert_allclose(ap, plain_ap(plain_ranking(images, [label], **limits), positives[label]))
    pooled = table.pooled_average_precision()
    for pool, ap in pooled.items():
        labels = [label for label in range(4) if pool in ('all', FREQUENCIES[label])]
        np.testing.assert_allclose(ap, plain_ap(plain_ranking(images, labels, **limits), positives[labels].sum()))
    assert list(pooled) == ['all', 'r', 'c', 'f']


@given(TARGETS, IMAGES, LIMITS)
def test_weights_of_one_are_no_weights(targets, images, limits):
    table = table_of(targets, images, **limits)
    ones = np.ones(4, int)
    np.testing.assert_equal(table.average_precision(ones), table.average_precision())
    np.testing.assert_equal(table.average_precision(np.array([ones, ones]))[1], table.average_precision())
    np.testing.assert_equal(table.pooled_average_precision(ones), table.pooled_average_precision())


@given(TARGETS, IMAGES, WEIGHTS)
def test_an_image_of_weight_two_is_two_images(targets, images, weights):
    # No two scores are equal on an image: of two equal ones one copy's might come between the other's.
    images = [[(label, 10 * tenths + place, bits) for place, (label, tenths, bits) in enumerate(of)] for of in images]
    copied = np.repeat(np.arange(4), weights)
    expected_positives = np.array(targets).reshape(4, 4)[copied].sum(axis=0)
    for label, ap in enumerate(table_of(targets, images).average_precision(weights)):
        ranking = plain_ranking([images[image] for image in copied], [label], per_image=300)
        np.testing.assert_allclose(ap, plain_ap(ranking, expected_positives[label]))


@given(TARGETS, IMAGES, LIMITS, st.permutations(range(4)))
def test_the_order_of_images_does_not_matter(targets, images, limits, order):
    assert_same_table(table_of(targets, images, order, **limits), table_of(targets, images, **limits))


@given(TARGETS, IMAGES, LIMITS, st.permutations(range(4)), st.integers(0, 4))
def test_merged_shards_are_one_table(targets, images, limits, order, split):
    # The last shard has an image again that the first one has.
    shards = [order[:split], order[split:] + order[: min(split, 1)]]
    tables = [table_of(targets, images, shard, **limits) for shard in shards]
    merged = MatchTable.merged(pickle.loads(pickle.dumps(tables)))
    assert_same_table(merged, table_of(targets, images, **limits))


@given(TARGETS, IMAGES, st.integers(1, 3))
def test_a_class_limit_applied_on_the_way_is_that_of_all_detections(targets, images, limit):
    expected = table_of(targets, images, per_image=None, per_class=limit)
    beyond, match_table.ROWS_BEYOND_LIMIT = match_table.ROWS_BEYOND_LIMIT, 0
    try:
        bounded = MatchTable(counts_of(targets), per_image=None, per_class=limit)
        for image, detections in enumerate(images):
            bounded.add(matches_of(image, detections))
            assert sum(len(part.labels) for part in bounded._parts) <= 4 * limit
    finally:
        match_table.ROWS_BEYOND_LIMIT = beyond
    assert_same_table(bounded, expected)


@given(TARGETS, IMAGES, LIMITS)
def test_figures_between_images_change_nothing(targets, images, limits):
    table = MatchTable(counts_of(targets), **limits)
    for image, detections in enumerate(images):
        table.average_precision()
        table.pooled_average_precision()
        table.add(matches_of(image, detections))
    assert_same_table(table, table_of(targets, images, **limits))


def test_places_in_a_file_decide_between_equal_scores_at_a_class_limit():
    targets = [1, 0, 0, 0] * 4
    images = [[(0, 5, (0, 0))], [(0, 5, (1023, 0))], [], []]
    for places, ap in (((0, 1), 0), ((1, 0), 26 / 101)):
        table = MatchTable(counts_of(targets), per_image=None, per_class=1)
        for image, detections in enumerate(images):
            table.add(matches_of(image, detections), places=np.array(places[image : image + 1], np.int64))
        assert table.average_precision()[0] == pytest.approx(ap)


def test_an_image_counts_once():
    table = table_of([1] * 16, [[]] * 4)
    with pytest.raises(ValueError, match='image 8 is in the table already'):
        table.add(matches_of(1, []))


@given(TARGETS, IMAGES, LIMITS)
def test_a_table_is_what_is_read_of_its_file(tmp_path_factory, targets, images, limits):
    path = tmp_path_factory.mktemp('tables') / 'dual.npz'
    table = table_of(targets, images, order=range(3), **limits)
    table.save(path)
    read = MatchTable.load(path)
    assert (read.per_image, read.per_class) == (table.per_image, table.per_class)
    np.testing.assert_equal(read.counts.category_ids, CATEGORY_IDS)
    for each in (table, read):
        each.add(matches_of(3, images[3]))
    assert_same_table(read, table)


@pytest.mark.parametrize('content', [b'', b'no table', 'arrays'])
def test_a_file_that_is_no_table_is_told_in_one_line(tmp_path, content):
    path = tmp_path / 'dual.npz'
    if content == 'arrays':
        np.savez(path, limits=[300, -1])
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r'dual\.npz: no table of matched detections') as error:
        MatchTable.load(path)
    assert '\n' not in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r'gone\.npz: no table of matched detections'):
        MatchTable.load(tmp_path / 'gone.npz')
