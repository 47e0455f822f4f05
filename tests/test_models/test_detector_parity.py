"""The whole detector detects what mmdetection 3 detects with the same weights: boxes, scores, classes and masks."""
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from pycocotools import mask as coco_mask
from torchvision.ops import box_iou

from mmdet.datasets.pipeline import Pipeline
from mmdet.registry import MODELS


def oracle_weights(oracle: Path, shapes: dict) -> dict[str, torch.Tensor]:
    spec = importlib.util.spec_from_file_location('oracle_weights', oracle / 'weights.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.fill(shapes)


def share_found(found: dict, wanted: dict) -> float:
    """The share of `wanted` detections that `found` has: same class, IoU > 0.99, score within 1e-4, mask IoU > 0.99."""
    matches = (found['labels'][:, None] == wanted['labels']) & (box_iou(found['bboxes'], wanted['bboxes']) > 0.99)
    matches &= (found['scores'][:, None] - wanted['scores']).abs() < 1e-4
    masks = coco_mask.iou(found['masks'], wanted['masks'], [0] * len(wanted['masks']))
    empty = torch.tensor([coco_mask.area(mask) == 0 for mask in wanted['masks']])
    matches &= (torch.from_numpy(masks) > 0.99) | empty
    return matches.any(dim=0).float().mean().item()


@pytest.mark.parametrize(
    'folder', ['mmdet3_mask_rcnn_r50_lvis', 'mmdet3_cascade_mask_rcnn_r50_coco', 'mmdet3_htc_r50_coco']
)
@torch.no_grad()
def test_detections_of_a_photograph(oracle, shared_data, folder, device):
    reference = oracle / folder
    expected = json.loads((reference / 'expected.json').read_text())
    arrays = np.load(reference / 'expected.npz')
    detector = MODELS.build(Config.fromfile(reference / 'model_config.py').model).eval()
    shapes = json.loads((reference / 'shapes.json').read_text())
    detector.load_state_dict(oracle_weights(oracle, shapes), strict=True)
    detector.to(device)

    pipeline = Pipeline(
        [
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=tuple(expected['test_scale']), keep_ratio=True),
            dict(type='PackDetInputs'),
        ]
    )
    image = shared_data / 'coco128/images' / expected['image']
    (sample,) = detector.test_step(pseudo_collate([pipeline(dict(img_path=str(image), img_id=0))]))

    found = sample.pred_instances.to('cpu')
    ours = dict(bboxes=found.bboxes, labels=found.labels, scores=found.scores, masks=found.masks)
    theirs = {name: torch.from_numpy(arrays[name]) for name in ('bboxes', 'labels', 'scores')}
    theirs['masks'] = [dict(rle, counts=rle['counts'].encode()) for rle in expected['rle']]
    assert len(found) == len(theirs['labels'])
    assert share_found(ours, theirs) >= 0.99
    assert share_found(theirs, ours) >= 0.99
