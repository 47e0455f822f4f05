import copy
import json

import numpy as np
import pytest

from mmdet.evaluation import CocoMetric
from mmdet.evaluation.streaming_metric import IOU_TYPES
from mmdet.registry import METRICS
from mmdet.structures import ClassFrequency

from .disturbed_detections import disturbed_detections, official_results
from .official_evaluators import COCO_FIGURES, official_coco


def evaluated(metric, samples, batch_size):
    for first in range(0, len(samples), batch_size):
        metric.process(None, samples[first : first + batch_size])
    return metric.evaluate(len(samples))


def assert_official(figures, path, samples, last_pixel=0):
    category_ids = sorted(category['id'] for category in json.loads(path.read_text())['categories'])
    for iou_type in IOU_TYPES:
        results = official_results(samples, category_ids, iou_type, last_pixel)
        for name, figure in official_coco(path, results, iou_type).items():
            assert figures[f'coco/{iou_type}_{name}'] == pytest.approx(figure, abs=1e-9), (iou_type, name)


@pytest.mark.slow
def test_figures_on_real_photographs_crowds_included(coco128):
    samples = disturbed_detections(json.loads(coco128.read_text()), most=60)[3:]
    metric = CocoMetric(coco128, metric=IOU_TYPES)
    figures = evaluated(metric, samples, batch_size=1)
    assert [name.removeprefix('coco/bbox_') for name in figures][:12] == COCO_FIGURES
    assert_official(figures, coco128, samples)
    assert evaluated(metric, samples[::-1], batch_size=50) == figures


def test_crowds_and_every_kind_of_mask(drawn_lvis):
    samples = disturbed_detections(json.loads(drawn_lvis.read_text()), most=400)
    assert_official(evaluated(CocoMetric(drawn_lvis, metric=IOU_TYPES), samples, 3), drawn_lvis, samples)


@pytest.mark.parametrize('kind', ['CocoMetric', 'LVISMetric'])
def test_boxes_alone_are_evaluated_unless_masks_are_asked_for(drawn_lvis, kind):
    samples = disturbed_detections(json.loads(drawn_lvis.read_text()), most=60)
    both = evaluated(METRICS.build(dict(type=kind, ann_file=str(drawn_lvis), metric=IOU_TYPES)), samples, 4)
    for sample in samples:
        del sample['pred_instances']['masks']
    figures = evaluated(METRICS.build(dict(type=kind, ann_file=str(drawn_lvis))), samples, 4)
    assert figures == {name: figure for name, figure in both.items() if '/bbox_' in name}


def test_bins_and_classes_of_coco_lt(drawn_lvis):
    samples = disturbed_detections(json.loads(drawn_lvis.read_text()), most=60)
    counts = [3, 19, 20, 399, 400, 8000]
    metric = METRICS.build(dict(type='CocoMetric', ann_file=str(drawn_lvis), metric='bbox', bins=(1, 20, 400, 8000)))
    metric.dataset_meta = {'category_ids': (2, 4, 6, 8, 10, 12)}
    metric.class_frequency = ClassFrequency('abcdef', counts, counts)
    figures = evaluated(metric, samples, 4)
    ap = np.array([row['bbox_AP'] for row in metric.per_class])
    means = [np.nanmean(ap[:2]), np.nanmean(ap[2:4]), ap[4], ap[5]]
    assert figures['coco/bbox_AP'] == pytest.approx(np.nanmean(ap))
    assert [figures[f'coco/bbox_AP{i}'] for i in range(1, 5)] == pytest.approx(means, nan_ok=True)
    assert figures['coco/bbox_bAP'] == pytest.approx(np.nanmean(means))
    assert 'segm_AP' not in metric.per_class[0]


def test_legacy_boxes_are_inclusive(drawn_lvis, tmp_path):
    samples = disturbed_detections(json.loads(drawn_lvis.read_text()), most=60)
    arguments = dict(ann_file=str(drawn_lvis), metric=IOU_TYPES)
    metric = METRICS.build(dict(arguments, type='LegacyCocoMetric', outfile_prefix=str(tmp_path / 'results')))
    figures = evaluated(metric, samples, 3)
    assert_official(figures, drawn_lvis, samples, last_pixel=1)
    assert figures['coco/bbox_AP'] != evaluated(CocoMetric(**arguments), samples, 3)['coco/bbox_AP']
    written = json.loads((tmp_path / 'results.bbox.json').read_text())
    assert written == official_results(samples, sorted(metric.categories), 'bbox', last_pixel=1)


def test_legacy_lvis_differs_from_lvis_by_the_last_pixel_alone(drawn_lvis):
    samples = disturbed_detections(json.loads(drawn_lvis.read_text()), most=60)
    arguments = dict(ann_file=str(drawn_lvis), metric=IOU_TYPES)
    legacy, today = (METRICS.build(dict(arguments, type=kind)) for kind in ('LegacyLVISMetric', 'LVISMetric'))
    figures = evaluated(legacy, samples, 3)
    grown = [copy.deepcopy(sample) for sample in samples]
    for sample in grown:
        sample['pred_instances']['bboxes'][:, 2:] += 1
    expected = evaluated(today, grown, 3)
    assert figures == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert figures != evaluated(today, samples, 3)
