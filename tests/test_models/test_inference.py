"""The form in which detectors are tested detects what they detect as built, and leaves them as they were."""
import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmdet.calibration import build_calibrator
from mmdet.models import optimize_for_inference
from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS
from mmdet.structures import ClassFrequency, DetDataSample

from .norm_statistics import with_statistics

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
SIZE, NUM_CLASSES = 96, 4


def folded_convs(model: nn.Module) -> int:
    return sum(isinstance(module, nn.Conv2d) and 'forward' in vars(module) for module in model.modules())


def num_convs(model: nn.Module) -> int:
    return sum(isinstance(module, nn.Conv2d) for module in model.modules())


@pytest.mark.parametrize(
    'options, unfolded',
    [
        (dict(type='ResNet', depth=18), 0),
        (dict(type='ResNet', depth=50, norm_cfg=dict(type='BN', requires_grad=False), style='caffe'), 0),
        (dict(type='ResNetV1d', depth=50), 0),
        (dict(type='ResNeXt', depth=50, groups=4, base_width=2), 0),
        # The layers that say where to read have no norm behind them, and the norms behind deformable ones stay.
        (dict(type='ResNet', depth=50, dcn=dict(type='DCNv2'), stage_with_dcn=(False, False, False, True)), 3),
        (dict(type='ResNet', depth=18, norm_cfg=dict(type='GN', num_groups=2)), None),
    ],
)
def test_backbones(options, unfolded, device):
    torch.manual_seed(0)
    backbone = with_statistics(MODELS.build(dict(options, base_channels=8, init_cfg=[]))).to(device)
    images = torch.randn(2, 3, SIZE, SIZE, device=device)
    with torch.no_grad():
        expected = backbone(images)
    optimize_for_inference(backbone)
    with torch.inference_mode():
        found = backbone(images)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert folded_convs(backbone) == (0 if unfolded is None else num_convs(backbone) - unfolded)


def test_necks_and_heads_with_norms():
    torch.manual_seed(0)
    neck = MODELS.build(
        dict(type='FPN', in_channels=[8, 16], out_channels=8, num_outs=3, norm_cfg=dict(type='BN'), act_cfg=None)
    )
    with_statistics(neck)
    maps = [torch.randn(1, 8, 12, 12), torch.randn(1, 16, 6, 6)]
    with torch.no_grad():
        expected = neck(maps)
    optimize_for_inference(neck)
    with torch.inference_mode():
        torch.testing.assert_close(neck(maps), expected, atol=1e-5, rtol=1e-5)
    assert folded_convs(neck) == 4


def mask_rcnn(kind: str) -> nn.Module:
    """A small detector whose weights tell RoIs and classes apart."""
    torch.manual_seed(0)
    if kind == 'mask':
        config = Config.fromfile(CONFIGS / '_base_/models/mask-rcnn_r18-half_fpn.py').model
        config.backbone.init_cfg, config.backbone.base_channels = None, 8
        config.neck.in_channels = [8, 16, 32, 64]
        heads = [config.roi_head.bbox_head]
    else:
        config = Config.fromfile(CONFIGS / 'glyph_lt/cascade-mask-rcnn_r18_fpn_glyph-lt.py').model
        config.backbone.base_channels, config.neck.in_channels = 8, [8, 16, 32, 64]
        heads = config.roi_head.bbox_head
    if kind == 'htc':
        stock = Config.fromfile(CONFIGS / '_base_/models/htc_r50_fpn.py').model.roi_head
        config.type, config.roi_head.type = 'HybridTaskCascade', 'HybridTaskCascadeRoIHead'
        config.roi_head.mask_head = [
            dict(config.roi_head.mask_head, type='HTCMaskHead', with_conv_res=head.with_conv_res, conv_out_channels=64)
            for head in stock.mask_head
        ]
        config.roi_head.semantic_roi_extractor = dict(stock.semantic_roi_extractor, out_channels=64)
        config.roi_head.semantic_head = dict(
            stock.semantic_head, num_ins=4, num_convs=2, in_channels=64, conv_out_channels=64, num_classes=5
        )
    mask_heads = config.roi_head.mask_head
    for head in [*heads, *(mask_heads if isinstance(mask_heads, list) else [mask_heads])]:
        head['num_classes'] = NUM_CLASSES
    config.test_cfg.rpn.max_per_img = 60
    config.test_cfg.rcnn.update(score_thr=0.01, max_per_img=40)
    detector = MODELS.build(config)
    detector.init_weights()
    for head in detector.roi_head.bbox_heads:
        nn.init.normal_(head.fc_reg.weight, std=0.05)
        nn.init.normal_(head.fc_cls.weight, std=0.05)
    counts = [1, 1000, 1, 1000]
    build_calibrator(dict(type='SimCal', head='3fc_rand'), detector, ClassFrequency('abcd', counts, counts))
    return with_statistics(detector)


def detect(detector: nn.Module) -> list[DetDataSample]:
    size = (SIZE, SIZE)
    meta = dict(img_shape=size, ori_shape=size, pad_shape=size, scale_factor=(1.0, 1.0))
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    images = images.to(next(detector.parameters()).dtype)
    return detector.predict(images, [DetDataSample(metainfo=meta) for _ in images])


def assert_same_detections(found: list[DetDataSample], expected: list[DetDataSample]) -> None:
    """As sets: same class, box, score and mask.

    In double precision all of them. In single precision, where boxes and scores may differ by 1e-4, 9 of 10: a
    detection, or the pixel of a mask, at the edge of a threshold may fall either way.
    """
    for ours, theirs in zip(found, expected, strict=True):
        ours, theirs = ours.pred_instances, theirs.pred_instances
        exact = ours.scores.dtype == torch.double
        close, enough = (1e-9, 1.0) if exact else (1e-4, 0.9)
        assert len(theirs) > 20 and enough * len(theirs) <= len(ours) <= len(theirs) / enough
        same = ours.labels[:, None] == theirs.labels
        same &= (ours.bboxes[:, None] - theirs.bboxes).abs().amax(2) < close * SIZE
        same &= (ours.scores[:, None] - theirs.scores).abs() < close
        assert min(same.any(axis).float().mean() for axis in (0, 1)) >= enough
        matched = same.any(1).nonzero().flatten().tolist()
        masks = [ours.masks[i] == theirs.masks[same[i].float().argmax()] for i in matched]
        assert sum(masks) >= enough * len(masks)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['mask', 'cascade', 'htc'])
@pytest.mark.parametrize('precision', [torch.float32, torch.float64])
def test_detections_and_parameters_stay(kind, precision):
    detector = mask_rcnn(kind).to(precision)
    state = copy.deepcopy(detector.state_dict())
    with torch.no_grad():
        expected = detect(detector)
    optimize_for_inference(detector)
    with torch.inference_mode():
        assert_same_detections(detect(detector), expected)
    assert folded_convs(detector) >= folded_convs(detector.backbone) == num_convs(detector.backbone)
    with torch.no_grad():  # calibration's trunk, for example
        assert_same_detections(detect(detector), expected)

    after = detector.state_dict()
    assert list(after) == list(state)
    assert all(torch.equal(after[name], tensor) for name, tensor in state.items())
    detector.load_state_dict(state, strict=True)


def test_weights_that_change_are_folded_anew():
    torch.manual_seed(0)
    images = torch.randn(1, 3, SIZE, SIZE)
    backbone = optimize_for_inference(with_statistics(ResNet(18, base_channels=8, norm_eval=False, init_cfg=[])))
    with torch.inference_mode():
        before = backbone(images)
    backbone.train()
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1)
    plain = with_statistics(ResNet(18, base_channels=8, norm_eval=False, init_cfg=[])).train()
    plain.load_state_dict(backbone.state_dict())
    loss, expected_loss = (sum(level.square().mean() for level in model(images)) for model in (backbone, plain))
    torch.testing.assert_close(loss, expected_loss)
    loss.backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    optimizer.step()

    backbone.eval()
    plain.load_state_dict(backbone.state_dict())
    with torch.inference_mode():
        after = backbone(images)
    with torch.no_grad():
        torch.testing.assert_close(after, plain.eval()(images), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(after[0], before[0], atol=1e-3)


def test_a_copy_folds_its_own_weights():
    images = torch.randn(1, 3, SIZE, SIZE)
    original = optimize_for_inference(with_statistics(ResNet(18, base_channels=8, init_cfg=[])))
    copied = copy.deepcopy(original)
    with torch.no_grad():
        copied.conv1.weight.zero_()
    with torch.inference_mode():
        before, of_copy, after = original(images), copied(images), original(images)
    assert torch.equal(before[0], after[0]) and not torch.allclose(of_copy[0], before[0])
