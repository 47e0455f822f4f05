"""Soft-NMS against a loop over boxes; what a config may ask for."""
import math

import numpy as np
import pytest
import torch

from mmdet.errors import ConfigError
from mmdet.models.post_processing import bbox_nms, multiclass_nms
from mmdet.models.post_processing.suppression import NMS, SoftNMS, suppression_rule


def overlap(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return width * height / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height)


def soft_nms_of_one_class(boxes, scores, method, iou_threshold, sigma, min_score):
    """Bodla et al., algorithm 1, as mmcv counts."""
    waiting = {i: score for i, score in enumerate(scores) if score >= min_score}
    taken = []
    while waiting:
        best = max(waiting, key=lambda i: (waiting[i], -i))
        taken.append((best, waiting.pop(best)))
        for i in list(waiting):
            shared = overlap(boxes[best], boxes[i])
            if method == 'gaussian':
                waiting[i] *= math.exp(-shared * shared / sigma)
            elif shared >= iou_threshold:
                waiting[i] *= 1 - shared if method == 'linear' else 0
            if waiting[i] < min_score:
                del waiting[i]
    return taken


@pytest.mark.parametrize('method', ['linear', 'gaussian', 'naive'])
@pytest.mark.parametrize('first_look', [1, 1024])
def test_soft_nms_equals_the_algorithm_class_by_class(method, first_look, monkeypatch):
    monkeypatch.setattr(bbox_nms, 'FIRST_LOOK', first_look)
    generator = np.random.default_rng(0)
    corner, size = generator.uniform(0, 40, (60, 2)), generator.uniform(5, 30, (60, 2))
    boxes = torch.from_numpy(np.hstack([corner, corner + size]).astype(np.float32))
    scores = torch.from_numpy(generator.uniform(0, 1, (60, 5)).astype(np.float32))
    nms = dict(type='soft_nms', method=method, iou_threshold=0.3, sigma=0.4, min_score=0.02)

    expected = [
        (score, roi, label)
        for label in range(5)
        for roi, score in soft_nms_of_one_class(boxes.tolist(), scores[:, label].tolist(), method, 0.3, 0.4, 0.02)
    ]
    expected = sorted(expected, reverse=True)[:50]
    _, found, labels, roi_index = multiclass_nms(boxes, scores, 0.0, nms, 50)
    assert list(zip(roi_index.tolist(), labels.tolist(), strict=True)) == [pair[1:] for pair in expected]
    np.testing.assert_allclose(found.numpy(), [pair[0] for pair in expected], rtol=1e-5)


def test_a_decayed_box_does_not_pass_a_candidate_not_yet_looked_at(monkeypatch):
    monkeypatch.setattr(bbox_nms, 'FIRST_LOOK', 1)
    crowd = torch.tensor([[0.0, 0.0, 10.0, 10.0]]) + torch.arange(7.0)[:, None] / 10
    boxes = torch.cat([crowd, torch.tensor([[50.0, 50.0, 60.0, 60.0]])])
    scores = torch.tensor([0.9, 0.89, 0.88, 0.87, 0.86, 0.85, 0.84, 0.5])[:, None]
    _, found, _, roi_index = multiclass_nms(boxes, scores, 0.0, dict(type='soft_nms'), 2)
    assert roi_index.tolist() == [0, 7]
    assert found.tolist() == pytest.approx([0.9, 0.5])


def test_the_same_box_twice_without_area_is_no_overlap():
    boxes = torch.zeros(2, 4)
    scores = torch.tensor([[0.9], [0.8]])
    for nms in (dict(type='nms', iou_threshold=0.5), dict(type='soft_nms'), dict(type='soft_nms', method='gaussian')):
        assert multiclass_nms(boxes, scores, 0.0, nms, 10)[1].tolist() == pytest.approx([0.9, 0.8])


def test_rules_of_mmdetections_configs():
    assert suppression_rule(dict(type='nms', iou_threshold=0.7)) == NMS(0.7)
    assert suppression_rule(dict(iou_threshold=0.5, class_agnostic=True)) == NMS(0.5, class_agnostic=True)
    assert suppression_rule(dict(type='soft_nms', iou_threshold=0.5, min_score=0.05)) == SoftNMS(0.5, min_score=0.05)


@pytest.mark.parametrize(
    ('nms', 'named'),
    [
        (dict(type='nsm', iou_threshold=0.5), 'nsm'),
        (dict(type='nms', iou_thr=0.5), 'iou_thr'),
        (dict(type='nms'), 'iou_threshold'),
        (dict(type='soft_nms', method='cubic'), 'cubic'),
        (dict(type='soft_nms', sigmoid=1), 'sigmoid'),
    ],
)
def test_a_mistake_in_the_config_is_named_in_one_line(nms, named):
    with pytest.raises(ConfigError, match=named) as error:
        suppression_rule(nms)
    assert '\n' not in str(error.value)
