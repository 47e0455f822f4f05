"""The comparison of two detectors finds what differs, and forgives what float noise explains."""
from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from reference_outputs import Outputs, differences


def mask(rows, columns):
    bitmap = np.zeros((100, 100), np.uint8)
    bitmap[rows, columns] = 1
    return coco_mask.encode(np.asfortranarray(bitmap))


@pytest.fixture
def outputs():
    rng = torch.Generator().manual_seed(0)
    corner = torch.rand(200, 2, generator=rng) * 60
    boxes = torch.cat([corner, corner + 5 + 30 * torch.rand(200, 2, generator=rng)], dim=1)
    return Outputs(
        bboxes=boxes,
        scores=torch.linspace(1, 0.01, 200),
        labels=torch.arange(200) % 7,
        masks=[mask(slice(10, 40), slice(10, 40)) for _ in boxes],
        proposals=torch.cat([boxes, torch.linspace(1, 0, 200)[:, None]], dim=1),
        input_shape=[1, 3, 96, 128],
        input_mean=0.25,
        fpn_stats=torch.tensor([[0.0, 1.0], [0.1, 0.5]]),
        fpn_corners=[torch.ones(4, 3, 3), torch.ones(4, 3, 3)],
    )


def failed(found, wanted):
    return [row.what for row in differences(found, wanted) if not row.passed]


def test_the_same_in_another_order(outputs):
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    found = replace(
        outputs,
        bboxes=outputs.bboxes[order] + 1e-5,
        scores=outputs.scores[order] + 1e-6,
        labels=outputs.labels[order],
        proposals=outputs.proposals[order.flip(0)] + 1e-6,
    )
    assert failed(found, outputs) == []


def test_boxes_without_area_match_themselves(outputs):
    flat = outputs.bboxes.clone()
    flat[:, 3] = flat[:, 1]
    assert failed(replace(outputs, bboxes=flat), replace(outputs, bboxes=flat)) == []


@pytest.mark.parametrize(
    ('change', 'what'),
    [
        (dict(input_shape=[1, 3, 96, 160]), 'input shape'),
        (dict(input_mean=0.26), 'input mean'),
        (dict(fpn_stats=torch.tensor([[0.0, 1.0], [0.1, 0.501]])), 'FPN mean, std'),
        (dict(fpn_corners=[torch.ones(4, 3, 3), torch.full((4, 3, 3), 1.01)]), 'FPN corners'),
        (dict(masks=[mask(slice(10, 40), slice(10, 41))] * 200), 'masks of the matched'),
    ],
)
def test_each_thing_is_compared(outputs, change, what):
    assert failed(replace(outputs, **change), outputs) == [what]


def test_one_detection_in_a_hundred_may_differ(outputs):
    labels = outputs.labels.clone()
    labels[:2] += 1
    assert failed(replace(outputs, labels=labels), outputs) == []
    labels[2] += 1
    assert failed(replace(outputs, labels=labels), outputs) == ['detections']
    assert failed(outputs, replace(outputs, labels=labels)) == ['detections']


def test_moved_boxes_and_scores_are_found(outputs):
    moved = outputs.bboxes + torch.tensor([0.0, 0, 1, 0])
    assert failed(replace(outputs, bboxes=moved), outputs) == ['detections']
    assert failed(replace(outputs, scores=outputs.scores + 2e-4), outputs) == ['detections']
    assert failed(replace(outputs, proposals=outputs.proposals[:190]), outputs) == ['proposals']


def test_a_single_pixel_of_a_small_mask(outputs):
    small = replace(outputs, masks=[mask(slice(0, 4), slice(0, 4))] * 200)
    one_less = mask([0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3], [0, 1, 2, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3])
    assert failed(replace(small, masks=[one_less] * 200), small) == []
    assert failed(replace(small, masks=[mask(slice(0, 4), slice(0, 3))] * 200), small) == ['masks of the matched']
