"""Matching in the background, and of masks with hope only, changes no figure."""
import pickle

import numpy as np
import pytest
from hotcoco import StreamingEval
from hotcoco import mask as rle
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet.evaluation.detections import Detections
from mmdet.evaluation.hopeless_masks import may_match
from mmdet.evaluation.matcher import Matcher

SIZE = 12, 16
IMAGES = [
    {'id': 3, 'height': 12, 'width': 16, 'neg_category_ids': [7], 'not_exhaustive_category_ids': [2]},
    {'id': 90, 'height': 12, 'width': 16, 'neg_category_ids': [2], 'not_exhaustive_category_ids': []},
]
CATEGORIES = [{'id': id, 'name': str(id), 'frequency': frequency} for id, frequency in ((2, 'r'), (5, 'c'), (7, 'f'))]


def rectangle(x, y, width, height):
    """A run-length encoding, empty where the rectangle is."""
    mask = np.zeros(SIZE, np.uint8, order='F')
    mask[y : y + height, x : x + width] = 1
    return rle.encode(mask)


RECTANGLES = st.builds(rectangle, st.integers(0, 12), st.integers(0, 9), st.integers(0, 6), st.integers(0, 6))
PLACES = st.tuples(st.sampled_from([3, 90]), st.sampled_from([2, 5, 7]))
TARGETS = st.lists(st.tuples(PLACES, RECTANGLES, st.booleans()), max_size=8)
DETECTIONS = st.lists(st.tuples(PLACES, RECTANGLES, st.integers(0, 5)), max_size=16)


def annotations(targets):
    return [
        {
            'id': number,
            'image_id': image_id,
            'category_id': category_id,
            'segmentation': mask,
            'bbox': rle.toBbox(mask).tolist(),
            'area': float(rle.area(mask)),
            'iscrowd': int(is_crowd),
        }
        for number, ((image_id, category_id), mask, is_crowd) in enumerate(targets, 1)
    ]


def batch_of(detections):
    """The detections image by image, in the order given."""
    batch = []
    for image_id in (3, 90):
        own = [(place[1], mask, score / 5) for place, mask, score in detections if place[0] == image_id]
        batch.append(
            Detections(
                image_id,
                boxes=np.array([rle.toBbox(mask) for _, mask, _ in own]).reshape(-1, 4),
                scores=np.array([score for *_, score in own], dtype=np.float64),
                category_ids=np.array([category_id for category_id, *_ in own], dtype=np.int64),
                masks=[mask for _, mask, _ in own],
            )
        )
    return batch


def evaluator(iou_type, lvis_style):
    return StreamingEval(CATEGORIES, iou_type=iou_type, lvis_style=lvis_style)


def plain_figures(iou_type, lvis_style, targets, batch):
    """Of all masks together, in hotcoco's other way to take detections."""
    plain = evaluator(iou_type, lvis_style)
    plain.update(IMAGES, targets, [result for detections in batch for result in detections.results(iou_type)])
    evaluation = plain.finalize()
    evaluation.accumulate()
    evaluation.summary_lines()
    return evaluation.get_results(per_class=True)


@pytest.mark.slow
@given(TARGETS, DETECTIONS, st.sampled_from(['bbox', 'segm']), st.booleans(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_figures_are_those_of_all_masks_at_once(targets, detections, iou_type, lvis_style, in_two_batches):
    targets, batch = annotations(targets), batch_of(detections)
    matcher = Matcher(evaluator(iou_type, lvis_style), iou_type, counts_empty=True)
    for images in [IMAGES[:1], IMAGES[1:]] if in_two_batches else [IMAGES]:
        ids = {image['id'] for image in images}
        own = [target for target in targets if target['image_id'] in ids]
        matcher.match(images, own, [each for each in batch if each.image_id in ids])
    assert matcher.figures() == plain_figures(iou_type, lvis_style, targets, batch)


@given(TARGETS, DETECTIONS)
@settings(max_examples=150, deadline=None)
def test_hope_is_lost_only_below_the_lowest_threshold(targets, detections):
    targets = annotations(targets)
    places, masks, _ = zip(*detections, strict=True) if detections else ((), (), ())
    image_ids, category_ids = np.array(places, dtype=np.float64).reshape(-1, 2).T
    hopes = may_match(image_ids, category_ids, rle.area(list(masks)), targets)
    for place, mask, hope in zip(places, masks, hopes, strict=True):
        there = [target for target in targets if (target['image_id'], target['category_id']) == place]
        if not hope:
            assert all(rle.iou([mask], [each['segmentation']], [each['iscrowd']])[0, 0] < 0.5 for each in there)


def test_a_mask_without_a_target_of_its_size_image_and_category_has_no_hope():
    targets = annotations([((90, 5), rectangle(0, 0, 6, 5), False), ((3, 7), rectangle(0, 0, 2, 2), True)])
    cases = [(90, 5, 15), (90, 5, 60), (90, 5, 14), (90, 5, 61), (90, 7, 30), (3, 5, 30), (3, 7, 30)]
    image_ids, category_ids, areas = np.array(cases).T
    assert may_match(image_ids, category_ids, areas, targets).tolist() == [True] * 2 + [False] * 4 + [True]
    assert may_match(image_ids, category_ids, areas, []).tolist() == [False] * 7


def test_what_goes_wrong_in_the_background_is_raised_by_the_next_call():
    unknown = Detections(3, np.array([[0.0, 0.0, 4.0, 4.0]]), np.array([0.5]), np.array([999]), None)
    for next_call in (
        lambda matcher: matcher.match(IMAGES, [], []),
        lambda matcher: matcher.figures(),
        lambda matcher: pickle.dumps(matcher),
    ):
        matcher = Matcher(evaluator('bbox', True), 'bbox', counts_empty=False)
        matcher.match(IMAGES, [], [unknown])
        with pytest.raises(KeyError, match='999'):
            next_call(matcher)


def test_a_matcher_is_sent_and_merged_with_all_it_was_given():
    mask = rectangle(1, 1, 5, 5)
    targets = annotations([((3, 2), mask, False), ((90, 5), mask, False)])
    batch = batch_of([((3, 2), mask, 1), ((90, 5), mask, 2), ((90, 2), mask, 3)])
    matchers = [Matcher(evaluator('segm', True), 'segm', counts_empty=False) for _ in IMAGES]
    for matcher, image, target, detections in zip(matchers, IMAGES, targets, batch, strict=True):
        matcher.match([image], [target], [detections])
    merged = Matcher.merged(pickle.loads(pickle.dumps(matchers)))
    assert merged.figures() == plain_figures('segm', True, targets, batch)
