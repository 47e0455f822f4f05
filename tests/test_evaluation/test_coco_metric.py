import copy
import json

import numpy as np
import pytest

from mmdet.errors import ConfigError
from mmdet.evaluation import CocoMetric
from mmdet.evaluation.figure_names import NamedFigures, other_names
from mmdet.evaluation.streaming_metric import IOU_TYPES
from mmdet.registry import METRICS
from mmdet.structures import ClassFrequency

from .disturbed_detections import disturbed_detections, official_results
from .official_evaluators import COCO_FIGURES, official_coco, official_coco_by_class, official_proposals


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


@pytest.mark.parametrize('metrics', ['proposal', ['bbox', 'proposal'], ['proposal', 'segm']])
def test_recall_of_proposals(drawn_lvis, tmp_path, metrics):
    content = json.loads(drawn_lvis.read_text())
    samples = disturbed_detections(content, most=1200, least=20)
    metric = CocoMetric(drawn_lvis, metric=metrics, outfile_prefix=str(tmp_path / 'results'))
    metric.dataset_meta = {'category_ids': (2, 4, 6)}
    for sample in samples:  # labels of these classes
        sample['pred_instances']['labels'] %= 3
    names = metric.figure_names()
    figures = evaluated(metric, samples, 3)
    assert [f'coco/{name}' for name in names] == list(figures)
    expected = official_proposals(drawn_lvis, official_results(samples, (2, 4, 6), 'bbox'))
    assert {name: figures[f'coco/{name}'] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert any(name.startswith('coco/bbox_') for name in figures) == ('bbox' in metrics)
    if 'segm' not in metrics:
        written = json.loads((tmp_path / 'results.bbox.json').read_text())
        assert written == official_results(samples, (2, 4, 6), 'bbox')


def test_recall_of_proposals_of_real_photographs(coco128):
    samples = disturbed_detections(json.loads(coco128.read_text()), most=300)
    figures = evaluated(CocoMetric(coco128, metric='proposal'), samples, 40)
    categories = sorted(category['id'] for category in json.loads(coco128.read_text())['categories'])
    expected = official_proposals(coco128, official_results(samples, categories, 'bbox'))
    assert figures == pytest.approx({f'coco/{name}': figure for name, figure in expected.items()}, abs=1e-9)


@pytest.mark.parametrize('metric', ['proposal_fast', 'keypoints', ['bbox', 'proposals']])
def test_what_is_not_measured_is_refused_in_one_line(drawn_lvis, metric):
    with pytest.raises(ConfigError, match=r"^metric '\w+' is not known to CocoMetric; choose among 'bbox'"):
        CocoMetric(drawn_lvis, metric=metric)


def test_every_class(drawn_lvis):
    samples = disturbed_detections(json.loads(drawn_lvis.read_text()), most=60)
    metric = CocoMetric(drawn_lvis, metric=IOU_TYPES, classwise=True)
    figures = evaluated(metric, samples, 4)
    for iou_type in IOU_TYPES:
        results = official_results(samples, (2, 4, 6, 8, 10, 12), iou_type)
        for category_id, ap in official_coco_by_class(drawn_lvis, results, iou_type).items():
            found = figures[f'coco/{iou_type}_class {category_id}_precision']
            assert found == pytest.approx(ap if ap >= 0 else np.nan, abs=1e-9, nan_ok=True)
    plain = evaluated(CocoMetric(drawn_lvis, metric=IOU_TYPES), samples, 4)
    assert plain == {name: figure for name, figure in figures.items() if not name.endswith('_precision')}


def test_of_the_data_sets_own_annotations_the_tested_images_count(drawn_lvis):
    samples = disturbed_detections(json.loads(drawn_lvis.read_text()), most=60)[2:6]
    metric = CocoMetric(metric=IOU_TYPES)
    metric.dataset_meta = {'category_ids': (2, 4, 6, 8, 10, 12)}
    with pytest.raises(ConfigError, match='^CocoMetric needs the key `ann_file`'):
        metric.process(None, samples)
    metric.evaluate_on(drawn_lvis)
    figures = evaluated(metric, samples, 3)
    for iou_type in IOU_TYPES:
        results = official_results(samples, (2, 4, 6, 8, 10, 12), iou_type)
        tested = [sample['img_id'] for sample in samples]
        for name, figure in official_coco(drawn_lvis, results, iou_type, imgIds=tested).items():
            assert figures[f'coco/{iou_type}_{name}'] == pytest.approx(figure, abs=1e-9), (iou_type, name)


def test_mmdetections_names(drawn_lvis):
    samples = disturbed_detections(json.loads(drawn_lvis.read_text()), most=60)
    metric = CocoMetric(drawn_lvis, metric=IOU_TYPES, classwise=True)
    names = metric.figure_names()
    figures = evaluated(metric, samples, 4)
    assert [f'coco/{name}' for name in names] == list(figures)
    named = NamedFigures(figures, other_names('coco', names, metric.aliases))
    assert named == figures and list(named) == list(figures)
    for iou_type in IOU_TYPES:
        for theirs, ours in dict(mAP='AP', mAP_50='AP50', mAP_75='AP75', mAP_s='APs', mAP_m='APm', mAP_l='APl').items():
            for name in (f'coco/{iou_type}_{theirs}', f'{iou_type}_{theirs}', f'{iou_type}_{ours}'):
                assert name in named and named[name] == named.get(name) == figures[f'coco/{iou_type}_{ours}']
    assert named['coco/class 4_precision'] is figures['coco/segm_class 4_precision']
    for name in ('coco/bbox_mAP_100', 'lvis/bbox_mAP', 'mAP', 'coco/'):
        assert name not in named and named.get(name) is None
        with pytest.raises(KeyError, match=name):
            named[name]


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
