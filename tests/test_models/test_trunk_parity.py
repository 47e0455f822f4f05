"""The trunk computes what mmdetection 3 computes with the same weights: pyramid and proposals of a photograph."""
import importlib.util
import json
from functools import lru_cache
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import nn
from torchvision.ops import box_iou

import mmdet.models  # noqa: F401  (registers the components)
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample


@pytest.fixture(autouse=True)
def both_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@lru_cache(maxsize=1)  # the three folders share one trunk
def weights_of(oracle: Path, names: tuple, shapes: tuple) -> dict[str, torch.Tensor]:
    spec = importlib.util.spec_from_file_location('oracle_weights', oracle / 'weights.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.fill(dict(zip(names, shapes, strict=True)))


@pytest.mark.parametrize(
    'folder', ['mmdet3_mask_rcnn_r50_lvis', 'mmdet3_cascade_mask_rcnn_r50_coco', 'mmdet3_htc_r50_coco']
)
@torch.no_grad()
def test_pyramid_and_proposals(oracle, shared_data, folder):
    reference = oracle / folder
    expected = json.loads((reference / 'expected.json').read_text())
    arrays = np.load(reference / 'expected.npz')
    cfg = Config.fromfile(reference / 'model_config.py').model

    trunk = nn.Module()
    trunk.backbone = MODELS.build(cfg.backbone)
    trunk.neck = MODELS.build(cfg.neck)
    trunk.rpn_head = MODELS.build(dict(cfg.rpn_head, train_cfg=cfg.train_cfg.rpn, test_cfg=cfg.test_cfg.rpn))
    shapes = json.loads((reference / 'shapes.json').read_text())
    names = tuple(name for name in shapes if name.startswith(('backbone.', 'neck.', 'rpn_head.')))
    trunk.load_state_dict(weights_of(oracle, names, tuple(tuple(shapes[name]) for name in names)), strict=True)
    trunk.eval()

    image = mmcv.imread(str(shared_data / 'coco128' / 'images' / expected['image']))
    image = mmcv.imrescale(image, tuple(expected['test_scale']), interpolation='bilinear', backend='cv2')
    sample = DetDataSample(metainfo=dict(img_shape=image.shape[:2]))
    data = dict(inputs=[torch.from_numpy(image).permute(2, 0, 1)], data_samples=[sample])
    batch = MODELS.build(cfg.data_preprocessor)(data)
    assert list(batch['inputs'].shape) == expected['input_shape']
    assert batch['inputs'].mean().item() == pytest.approx(expected['input_mean'], rel=1e-4)

    feats = trunk.neck(trunk.backbone(batch['inputs']))
    for i, (level, (mean, std)) in enumerate(zip(feats, expected['fpn_mean_std'], strict=True)):
        assert level.mean().item() == pytest.approx(mean, rel=1e-4, abs=1e-6)
        assert level.std().item() == pytest.approx(std, rel=1e-4)
        np.testing.assert_allclose(level[0, :4, :3, :3], arrays[f'fpn{i}'], rtol=1e-4, atol=1e-5)

    (found,) = trunk.rpn_head.predict(feats, batch['data_samples'])
    boxes, scores = torch.from_numpy(arrays['proposals']).split([4, 1], dim=1)
    torch.testing.assert_close(found.scores, scores[:, 0], rtol=1e-4, atol=1e-6)
    # Two proposals with scores a rounding error apart may change places, so each is sought among all.
    overlap, nearest = box_iou(found.bboxes, boxes).max(dim=1)
    assert overlap.min() > 1 - 1e-4
    assert len(nearest.unique()) == len(boxes)
    torch.testing.assert_close(found.scores, scores[nearest, 0], rtol=1e-4, atol=1e-6)
