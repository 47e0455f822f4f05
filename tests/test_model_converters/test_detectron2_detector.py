"""Converted detectron2 weights detect what detectron2 computes from them (as told by `detectron2_reference`)."""
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from double_precision import in_double_precision
from PIL import Image

from mmdet.apis import inference_detector, init_detector
from mmdet.engine import load_config, load_weights, read_checkpoint
from mmdet.errors import CheckpointError, ConfigError
from mmdet.model_converters import convert_detectron2
from mmdet.models.post_processing import rle_to_bitmaps
from mmdet.registry import MODELS

from .detectron2_reference import Reference, Settings, shapes

ROOT = Path(__file__).resolve().parents[2]
LONGER, SHORTER = 220, 160  # detectron2's sizes scaled down
PROPOSALS, DETECTIONS = 100, 40
X101 = dict(depth=101, num_groups=32, width_per_group=8, stride_in_1x1=False, pixel_std=(57.375, 57.12, 58.395))


def random_weights(cfg, seed=0):
    """Weights by detectron2's names, and a trunk through which signals neither vanish nor explode."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes(cfg).items():
        if name.endswith('.weight') and len(shape) > 1:
            weights[name] = torch.randn(shape, generator=generator) * (2 / np.prod(shape[1:])) ** 0.5
        elif name.endswith(('.running_var', '.weight')):
            weights[name] = torch.rand(shape, generator=generator) + 0.5
        else:
            weights[name] = torch.randn(shape, generator=generator) * 0.1
        if name.endswith('conv3.norm.weight'):
            weights[name] *= 0.2  # a sum of many branches does not grow
    return weights


class Spreading(Reference):
    """A detector whose layers, the first time each is used, get outputs of mean 0 and deviation 1 or as given here."""

    deviation = dict(objectness_logits=1.5, anchor_deltas=0.2, cls_score=2.0, bbox_pred=0.7, predictor=2.0)

    def __init__(self, weights, cfg):
        super().__init__(weights, cfg)
        self.done = set()

    def conv(self, x, name, *options, **more):
        """As of the base."""
        return self._spread(name, lambda: super(Spreading, self).conv(x, name, *options, **more))

    def linear(self, x, name):
        """As of the base."""
        return self._spread(name, lambda: super(Spreading, self).linear(x, name))

    def _spread(self, name, run):
        if f'{name}.bias' not in self.weights or name in self.done:
            return run()
        self.done.add(name)
        deviation = self.deviation.get(name.rpartition('.')[2], 1.0)
        rows = run().transpose(0, 1).flatten(1)
        factor = deviation / rows.std(1)
        weight, bias = self.weights[f'{name}.weight'], self.weights[f'{name}.bias']
        weight.mul_(factor.view(-1, *[1] * (weight.ndim - 1)))
        bias.copy_((bias - rows.mean(1)) * factor)
        return run()


def model_zoo_file(path, weights):
    """A file as detectron2's model zoo has them."""
    arrays = {name: tensor.numpy() for name, tensor in weights.items()}
    path.write_bytes(pickle.dumps(dict(model=arrays, __author__='them'), protocol=2))
    return path


def resized(path):
    """A photograph as detectron2's `ResizeShortestEdge` leaves it (3, H, W), BGR, and its own (height, width)."""
    image = Image.open(path).convert('RGB')
    factor = min(SHORTER / min(image.size), LONGER / max(image.size))
    small = image.resize([int(side * factor + 0.5) for side in image.size], Image.Resampling.BILINEAR)
    bgr = np.asarray(small)[..., ::-1].transpose(2, 0, 1)
    return torch.from_numpy(bgr.astype(np.float32)), image.size[::-1]


@pytest.mark.slow
@torch.no_grad()
def test_same_detections_of_photographs(shared_data, tmp_path):
    cfg = Settings(num_classes=12, post_nms_topk=PROPOSALS, detections_per_image=DETECTIONS)
    photographs = sorted((shared_data / 'coco128/images').glob('*.jpg'))[:2]
    weights = random_weights(cfg)
    Spreading(weights, cfg)(*resized(photographs[0]))
    found = convert_detectron2(model_zoo_file(tmp_path / 'model_final.pkl', weights), tmp_path / 'ours.pth')
    assert found == dict(config='configs/detectron2/mask-rcnn_r50_fpn_coco.py', num_classes=12)
    config = load_config(ROOT / found['config'])
    config.model.roi_head.bbox_head.num_classes = config.model.roi_head.mask_head.num_classes = 12
    config.model.test_cfg.rpn.max_per_img, config.model.test_cfg.rcnn.max_per_img = PROPOSALS, DETECTIONS
    config.test_dataloader.dataset.pipeline[1].scale = (LONGER, SHORTER)
    ours = in_double_precision(init_detector(config, tmp_path / 'ours.pth', device='cpu'))
    theirs = Reference({name: tensor.double() for name, tensor in weights.items()}, cfg)
    for path in photographs:
        wanted = theirs(*resized(path))
        assert len(wanted['labels']) >= 20 and len(wanted['labels'].unique()) >= 3
        detections = inference_detector(ours, path).pred_instances
        assert len(detections) == len(wanted['labels'])
        distance = torch.cdist(detections.bboxes, wanted['boxes'], p=torch.inf)
        distance[detections.labels[:, None] != wanted['labels']] = torch.inf
        partner = distance.argmin(dim=0)
        assert torch.equal(partner.sort().values, torch.arange(len(detections)))
        torch.testing.assert_close(detections.scores[partner], wanted['scores'], rtol=0, atol=2e-6)
        torch.testing.assert_close(detections.bboxes[partner], wanted['boxes'], rtol=0, atol=2e-4)
        differs = rle_to_bitmaps([detections.masks[i] for i in partner]) != wanted['masks'].numpy()
        assert wanted['masks'].any() and differs.mean() < 1e-6  # masks are pasted in single precision


@pytest.mark.slow
@pytest.mark.parametrize(
    ('cfg', 'config'),
    [
        (Settings(num_classes=1230), 'r50_fpn_lvis-v0.5'),
        (Settings(num_classes=1203, **X101), 'x101-32x8d_fpn_lvis-v1'),
    ],
)
@torch.no_grad()
def test_trunks_and_configs_of_the_model_zoo(tmp_path, cfg, config):
    """Every parameter has a place in the config's detector, whose pyramid is detectron2's."""
    weights = random_weights(cfg)
    torch.save(dict(model=weights, iteration=89999), tmp_path / 'model_final.pth')
    found = convert_detectron2(tmp_path / 'model_final.pth', tmp_path / 'ours.pth')
    assert found == dict(config=f'configs/detectron2/mask-rcnn_{config}.py', num_classes=cfg.num_classes)
    model = load_config(ROOT / found['config']).model
    ours = MODELS.build(model).eval()
    load_weights(ours, read_checkpoint(tmp_path / 'ours.pth'), 'ours.pth')
    ours, theirs = in_double_precision(ours), Reference({name: each.double() for name, each in weights.items()}, cfg)
    image = torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(1)) * 255
    inputs = ours.data_preprocessor(dict(inputs=[image]))['inputs']
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (cfg.pixel_mean, cfg.pixel_std))
    levels = theirs.pyramid(((image - mean) / std)[None].double())
    for level, wanted in zip(ours.extract_feat(inputs), levels, strict=True):
        torch.testing.assert_close(level, wanted, rtol=1e-6, atol=1e-6 * float(wanted.abs().max()))
    expected = dict(score_thr=0.05, max_per_img=100) if cfg.num_classes == 80 else dict(score_thr=1e-4, max_per_img=300)
    assert {key: model.test_cfg.rcnn[key] for key in expected} == expected


def of_one_number_a_row(cfg):
    """Every parameter of a detector, but for the inputs of its layers (and for the groups of a convolution)."""
    found = {name: torch.zeros(shape[0], *[1] * (len(shape) - 1)) for name, shape in shapes(cfg).items()}
    conv2 = 'backbone.bottom_up.res2.0.conv2.weight'
    return found | {conv2: torch.zeros(shapes(cfg)[conv2])}


@pytest.fixture
def weights():
    """Of a detector of two classes."""
    return of_one_number_a_row(Settings(num_classes=2))


@pytest.mark.parametrize(
    ('cfg', 'config'),
    [
        (Settings(depth=101), 'r101_fpn_coco'),
        (Settings(depth=101, num_classes=1230), 'r101_fpn_lvis-v0.5'),
        (Settings(**X101), 'x101-32x8d_fpn_coco'),
        (Settings(num_classes=7), 'r50_fpn_coco'),
    ],
)
def test_the_config_follows_from_the_file(tmp_path, cfg, config):
    found = convert_detectron2(model_zoo_file(tmp_path / 'a.pkl', of_one_number_a_row(cfg)), tmp_path / 'ours.pth')
    assert found == dict(config=f'configs/detectron2/mask-rcnn_{config}.py', num_classes=cfg.num_classes)
    meta = read_checkpoint(tmp_path / 'ours.pth')['meta']['dataset_meta']
    assert len(meta.get('category_ids', [])) == (0 if cfg.num_classes == 7 else cfg.num_classes)


def test_what_else_files_hold(weights, tmp_path):
    """Anchors and pixel means are in the config; norms folded into weight and bias get statistics that do nothing."""
    folded = {name: tensor for name, tensor in weights.items() if '.running_' not in name}
    more = dict(pixel_mean=torch.zeros(3, 1, 1), pixel_std=torch.ones(3, 1, 1))
    more['proposal_generator.anchor_generator.cell_anchors.0'] = torch.zeros(3, 4)
    convert_detectron2(model_zoo_file(tmp_path / 'a.pkl', folded | more), tmp_path / 'ours.pth', classes=['cat', 'dog'])
    checkpoint = read_checkpoint(tmp_path / 'ours.pth')
    assert checkpoint['meta']['dataset_meta'] == dict(classes=['cat', 'dog'])
    ours = checkpoint['state_dict']
    assert len(ours) == len(weights)
    assert (ours['backbone.layer2.0.downsample.1.running_var'] == 1).all()
    assert (ours['backbone.bn1.running_mean'] == 0).all()


@pytest.mark.parametrize('suffix', ['.pkl', '.pth'])
def test_names_of_wrapped_models(weights, tmp_path, soiled, suffix):
    found = []
    for state in (weights, soiled(weights)):
        path = tmp_path / f'model{suffix}'
        if suffix == '.pkl':
            model_zoo_file(path, state)
        else:
            torch.save(dict(model=state), path)
        convert_detectron2(path, tmp_path / 'ours.pth')
        found.append(read_checkpoint(tmp_path / 'ours.pth')['state_dict'])
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_files_and_classes_that_do_not_fit(weights, tmp_path):
    out = tmp_path / 'out.pth'
    path = model_zoo_file(tmp_path / 'a.pkl', weights)
    with pytest.raises(ConfigError, match='--classes: 3 classes, but the detector in .* has 2'):
        convert_detectron2(path, out, classes=['a', 'b', 'c'])
    model_zoo_file(path, {'conv1_w': torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r'a\.pkl: `conv1_w` is no parameter of a detectron2 Mask R-CNN'):
        convert_detectron2(path, out)
    faster = {name: tensor for name, tensor in weights.items() if 'mask_head' not in name}
    with pytest.raises(CheckpointError, match='lacks what becomes `roi_head.mask_head.conv_logits.weight`'):
        convert_detectron2(model_zoo_file(path, faster), out)
    path.write_bytes(pickle.dumps(dict(model=[1, 2])))
    with pytest.raises(CheckpointError, match='holds no `model` of named arrays'):
        convert_detectron2(path, out)
    mark = tmp_path / 'run'
    path.write_bytes(pickle.dumps(dict(model=Program(f'touch {mark}'))))
    with pytest.raises(CheckpointError, match='which is not data and could run a program'):
        convert_detectron2(path, out)
    assert not mark.exists() and not out.exists()


class Program:
    """Runs a command where it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)
