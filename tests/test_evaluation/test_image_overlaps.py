"""Matching image by image, against the rule in the plainest words and against the official evaluator."""
import json

import cv2
import numpy as np
import pytest
from hotcoco import mask as rle
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mmdet.errors import AnnotationError
from mmdet.evaluation import LVISMetric
from mmdet.evaluation.class_groups import ClassGroups
from mmdet.evaluation.federated_truth import FederatedTruth
from mmdet.evaluation.greedy_matching import IOU_THRESHOLDS, greedy_matches
from mmdet.evaluation.ground_truth import read_ground_truth
from mmdet.evaluation.image_overlaps import ImageOverlaps
from mmdet.evaluation.mask_boundary import mask_boundary
from mmdet.evaluation.match_table import MatchTable

from .disturbed_detections import disturbed_detections, official_results
from .official_evaluators import official_lvis


def plain_matches(iou, ignored, threshold):
    """Of each detection 'none', 'counts' or 'ignored'."""
    free = set(range(iou.shape[1]))
    outcomes = []
    for overlaps in iou:
        able = [target for target in free if overlaps[target] >= threshold]
        best = max(able, key=lambda target: (not ignored[target], overlaps[target], target), default=None)
        free.discard(best)
        outcomes.append('none' if best is None else 'ignored' if ignored[best] else 'counts')
    return outcomes


SHAPES = st.tuples(st.integers(0, 6), st.integers(1, 4))


@given(st.data(), SHAPES)
def test_detections_are_matched_in_turn(data, shape):
    # A twentieth is the distance of the thresholds, so that many overlaps are equal or on a threshold.
    twentieths = data.draw(arrays.arrays(int, shape, elements=st.integers(8, 20)))
    iou = np.append(IOU_THRESHOLDS, [0.0, 0.3, 1.0])[twentieths - 8]
    ignored = data.draw(arrays.arrays(bool, (shape[1], 2)))
    matched, to_ignored = greedy_matches(iou, ignored)
    for area in range(2):
        for bit, threshold in enumerate(IOU_THRESHOLDS):
            has_target = matched[:, area] >> bit & 1
            ours = np.where(to_ignored[:, area] >> bit & 1, 'ignored', np.where(has_target, 'counts', 'none'))
            assert ours.tolist() == plain_matches(iou, ignored[:, area], threshold)


def filled_table(truth, samples, overlap, **limits):
    table = MatchTable(truth.counts, **limits)
    for sample in samples:
        instances = sample['pred_instances']
        boxes = instances['bboxes'].double().numpy()
        boxes[:, 2:] -= boxes[:, :2]
        overlaps = ImageOverlaps(truth.targets(sample['img_id']), overlap, boxes, instances['masks'])
        labels, scores = instances['labels'].numpy(), instances['scores'].double().numpy()
        table.add(overlaps.match(np.arange(len(labels)), labels, scores))
    return table


@pytest.mark.parametrize('overlap', ['bbox', 'segm'])
def test_figures_are_the_official_ones(drawn_lvis, overlap):
    """With ignored, crowd and empty annotations, and more detections on an image than count."""
    path, samples = drawn_lvis, disturbed_detections(json.loads(drawn_lvis.read_text()), most=600, seed=1)
    truth = FederatedTruth(read_ground_truth(path, with_masks=True))
    table = filled_table(truth, samples, overlap)
    expected, class_ap = official_lvis(path, official_results(samples, truth.category_ids.tolist(), overlap), overlap)
    ours = table.average_precision()
    np.testing.assert_allclose(np.nan_to_num(ours, nan=-1), class_ap, atol=1e-12)
    means = ClassGroups(truth.counts.frequencies).means(ours)
    means['AP50'] = np.nanmean(table.curves()[0][:, 0])
    for name, figure in means.items():
        assert np.nan_to_num(figure, nan=-1) == pytest.approx(expected[name], abs=1e-12)


def test_on_real_annotations_figures_are_those_of_the_metric(lvis_val_100):
    samples = disturbed_detections(json.loads(lvis_val_100.read_text()), most=340)
    metric = LVISMetric(lvis_val_100, metric=['bbox', 'segm'])
    metric.process(None, samples)
    metric.evaluate(len(samples))
    for overlap in ('bbox', 'segm'):
        table = filled_table(FederatedTruth(metric.ground_truth), samples, overlap)
        expected = [row[f'{overlap}_AP'] for row in metric.per_class]
        np.testing.assert_allclose(table.average_precision(), expected, atol=1e-12)


@pytest.mark.parametrize('overlap', ['bbox', 'segm', 'boundary'])
def test_settings_that_share_objects_are_matched_as_alone(drawn_lvis, overlap):
    content = json.loads(drawn_lvis.read_text())
    truth = FederatedTruth(read_ground_truth(drawn_lvis, with_masks=True))
    rng = np.random.default_rng(0)
    for sample in disturbed_detections(content, most=60):
        targets = truth.targets(sample['img_id'])
        masks = sample['pred_instances']['masks']
        boxes = rle.toBbox(masks).reshape(-1, 4)
        shared = ImageOverlaps(targets, overlap, boxes, masks)
        for _ in range(3):
            objects = rng.integers(len(masks), size=80)
            labels, scores = rng.integers(6, size=80), rng.random(80).round(1)
            own = ImageOverlaps(targets, overlap, boxes[objects], [masks[i] for i in objects])
            np.testing.assert_equal(shared.match(objects, labels, scores), own.match(np.arange(80), labels, scores))


def test_a_given_area_decides_what_is_in_a_range(drawn_lvis):
    truth = FederatedTruth(read_ground_truth(drawn_lvis, with_masks=True), area_ranges={'small': (0, 100)})
    image_id = json.loads(drawn_lvis.read_text())['images'][1]['id']
    targets = truth.targets(image_id)
    everywhere = targets._replace(annotated=np.ones(6, bool), exhaustive=np.ones(6, bool))
    boxes = np.array([[200.0, 200.0, 5.0, 5.0]] * 2)
    overlaps = ImageOverlaps(everywhere, 'bbox', boxes, areas=np.array([25, 200]))
    assert overlaps.match(np.arange(2), np.zeros(2, int), np.array([0.9, 0.8])).ignored.tolist() == [[0], [1023]]


def test_unknown_overlaps_images_and_categories(drawn_lvis):
    ground_truth = read_ground_truth(drawn_lvis, with_masks=True)
    truth = FederatedTruth(ground_truth)
    with pytest.raises(AnnotationError, match='has no image 5000, which was tested'):
        truth.targets(5000)
    with pytest.raises(AnnotationError, match='has no category 3, which is to be evaluated'):
        FederatedTruth(ground_truth, [2, 3])
    with pytest.raises(ValueError, match="'keypoints' is none of bbox, segm, boundary"):
        ImageOverlaps(truth.targets(next(iter(ground_truth.images))), 'keypoints', np.zeros((0, 4)))


def test_counts_are_of_every_image(drawn_lvis):
    content = json.loads(drawn_lvis.read_text())
    truth = FederatedTruth(read_ground_truth(drawn_lvis, with_masks=False), [8, 2, 12])
    weights = np.arange(len(content['images']))
    place = {image_id: place for place, image_id in enumerate(sorted(image['id'] for image in content['images']))}
    expected, weighted = np.zeros(3), np.zeros(3)
    for annotation in content['annotations']:
        if annotation['category_id'] in (8, 2, 12) and annotation['area'] > 0 and not annotation.get('ignore'):
            label = [8, 2, 12].index(annotation['category_id'])
            expected[label] += 1
            weighted[label] += place[annotation['image_id']]
    assert truth.counts.positives(0).tolist() == expected.tolist()
    assert truth.counts.positives(0, weights).tolist() == weighted.tolist()
    assert truth.counts.frequencies.tolist() == ['f', 'f', 'r']


def plain_boundary(pixels):
    """The rule on the whole image: pad, erode once for each pixel of the boundary's width, subtract."""
    width = max(1, round(0.02 * np.sqrt(pixels.shape[0] ** 2 + pixels.shape[1] ** 2)))
    eroded = np.pad(pixels, 1)
    for _ in range(width):
        eroded = cv2.erode(eroded, np.ones((3, 3), np.uint8))
    return pixels - eroded[1:-1, 1:-1]


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 90), st.integers(1, 90)), elements=st.just(1)), st.data())
@settings(max_examples=30)
def test_the_boundary_of_a_mask(pixels, data):
    height, width = pixels.shape
    for _ in range(data.draw(st.integers(0, 4))):
        y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        pixels[y : y + data.draw(st.integers(1, 30)), x : x + data.draw(st.integers(1, 30))] = 0
    boundary = rle.decode(mask_boundary(rle.encode(np.asfortranarray(pixels))))
    np.testing.assert_array_equal(boundary, plain_boundary(pixels))


def test_both_the_mask_and_its_boundary_must_overlap(tmp_path):
    solid = np.zeros((100, 100), np.uint8, order='F')
    solid[20:80, 20:80] = 1
    hollow = solid - np.pad(solid[24:76, 24:76], 24)
    small = np.asfortranarray(np.pad(solid[25:75, 25:75], 25))
    annotation = {'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [20, 20, 60, 60], 'area': 3600}
    segmentation = rle.encode(solid)
    content = {
        'images': [{'id': 1, 'height': 100, 'width': 100, 'neg_category_ids': [], 'not_exhaustive_category_ids': []}],
        'categories': [{'id': 1, 'name': 'a', 'frequency': 'r'}],
        'annotations': [annotation | {'segmentation': segmentation | {'counts': segmentation['counts'].decode()}}],
    }
    path = tmp_path / 'val.json'
    path.write_text(json.dumps(content))
    targets = FederatedTruth(read_ground_truth(path, with_masks=True)).targets(1)

    def thresholds_reached(mask, overlap):
        overlaps = ImageOverlaps(targets, overlap, masks=[rle.encode(mask)])
        matches = overlaps.match(np.array([0]), np.array([0]), np.array([0.9]))
        return int(matches.matched[0, 0]).bit_count()

    # Of 3,600 pixels the hollow mask has 896, too few, and the small one 2,500, but none of the boundary's.
    assert [thresholds_reached(solid, overlap) for overlap in ('segm', 'boundary')] == [10, 10]
    assert [thresholds_reached(hollow, overlap) for overlap in ('segm', 'boundary')] == [0, 0]
    assert [thresholds_reached(small, overlap) for overlap in ('segm', 'boundary')] == [4, 0]
