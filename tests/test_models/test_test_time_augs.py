"""Test-time augmentation against its definition, written out box by box and mask by mask."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from pycocotools import mask as coco_mask

from mmdet.calibration import build_calibrator
from mmdet.errors import ConfigError
from mmdet.models.post_processing import paste_masks
from mmdet.registry import MODELS
from mmdet.structures import ClassFrequency, DetDataSample
from mmdet.structures.boxes import box_iou

from .test_roi_heads.test_cascade import CONFIGS, NUM_CLASSES, built, cascade_config, htc_config

HEIGHT, WIDTH = 48, 64
KEPT = 12
AXES = dict(horizontal=[-1], vertical=[-2], diagonal=[-2, -1])


def mask_rcnn_config() -> Config:
    model = Config.fromfile(CONFIGS / 'glyph_lt/mask-rcnn_r18-ag_fpn_glyph-lt.py').model
    model.backbone.base_channels, model.neck.in_channels = 8, [8, 16, 32, 64]
    model.roi_head.bbox_head.num_classes = model.roi_head.mask_head.num_classes = NUM_CLASSES
    model.roi_head.bbox_head.fc_out_channels = 32
    model.test_cfg.rpn.max_per_img = 30
    return model


def legacy_config() -> Config:
    model = mask_rcnn_config()
    model.roi_head.type = 'LegacyStandardRoIHead'
    return model


def box_config() -> Config:
    model = mask_rcnn_config()
    del model.roi_head.mask_head
    return model


KINDS = pytest.mark.parametrize('config', [mask_rcnn_config, cascade_config, htc_config])


def detector_of(config):
    model = config()
    model.test_cfg.rcnn.update(score_thr=0.05, max_per_img=KEPT, nms=dict(type='nms', iou_threshold=0.5))
    return built(model).eval()


def augmented(detector, max_per_img=KEPT):
    tta_cfg = dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=max_per_img)
    return MODELS.build(dict(type='DetTTAModel', module=detector, tta_cfg=tta_cfg))


def image(seed=0):
    rng = torch.Generator().manual_seed(seed)
    return F.interpolate(torch.rand(1, 3, 12, 16, generator=rng) * 255, (HEIGHT, WIDTH), mode='bilinear')[0]


def view(img, factor=1.0, direction=None):
    """An image resized and mirrored, with its sample."""
    size = round(HEIGHT * factor), round(WIDTH * factor)
    resized = F.interpolate(img[None], size, mode='bilinear')[0] if factor != 1 else img
    sample = DetDataSample(
        metainfo=dict(
            ori_shape=(HEIGHT, WIDTH),
            img_shape=size,
            scale_factor=(size[1] / WIDTH, size[0] / HEIGHT),
            flip=direction is not None,
            flip_direction=direction,
        )
    )
    return resized.flip(AXES[direction]) if direction else resized, sample


def together(*views):
    """Batches of each view, as they are collated."""
    return dict(inputs=[[img] for img, _ in views], data_samples=[[sample.clone()] for _, sample in views])


def detected(detector, img, sample):
    (found,) = detector.test_step(dict(inputs=[img], data_samples=[sample.clone()]))
    return found.pred_instances


def mirrored(boxes, direction):
    x1, y1, x2, y2 = boxes.T
    if direction in ('horizontal', 'diagonal'):
        x1, x2 = WIDTH - x2, WIDTH - x1
    if direction in ('vertical', 'diagonal'):
        y1, y2 = HEIGHT - y2, HEIGHT - y1
    return torch.stack([x1, y1, x2, y2], dim=1)


def bitmaps(masks):
    return torch.from_numpy(np.stack([coco_mask.decode(mask) for mask in masks])).bool()


@torch.no_grad()
@pytest.mark.parametrize('config', [mask_rcnn_config, cascade_config, htc_config, legacy_config])
@pytest.mark.parametrize('factor', [1.0, 1.5, 1.37])
def test_one_view_as_it_is_equals_ordinary_testing(config, factor):
    detector = detector_of(config)
    single = view(image(), factor)
    expected = detected(detector, *single)
    (found,) = augmented(detector).test_step(together(single))
    assert len(expected) == KEPT
    for key in ('bboxes', 'scores', 'labels'):
        assert torch.equal(found.pred_instances[key], expected[key])
    assert found.pred_instances.masks == expected.masks
    assert set(found.pred_instances.keys()) == set(expected.keys())


@torch.no_grad()
def test_a_detector_without_masks_is_merged_without():
    detector = detector_of(box_config)
    (found,) = augmented(detector).test_step(together(view(image()), view(image(), 1.5, 'horizontal')))
    assert len(found.pred_instances) == KEPT and set(found.pred_instances.keys()) == {'bboxes', 'scores', 'labels'}
    single = view(image(), 1.5)
    (found,) = augmented(detector).test_step(together(single))
    assert torch.equal(found.pred_instances.bboxes, detected(detector, *single).bboxes)


@torch.no_grad()
@pytest.mark.parametrize('direction', AXES)
def test_what_is_found_in_a_mirrored_view_is_mirrored_back(direction):
    detector = detector_of(mask_rcnn_config)
    img, sample = view(image(), 1.5, direction)
    there = detected(detector, img, sample)
    (found,) = augmented(detector).test_step(together((img, sample)))
    back = found.pred_instances
    assert back.bboxes.numpy() == pytest.approx(mirrored(there.bboxes, direction).numpy(), abs=1e-4)
    assert torch.equal(back.scores, there.scores) and torch.equal(back.labels, there.labels)
    expected = bitmaps(there.masks).flip(AXES[direction])
    assert expected.any() and (bitmaps(back.masks) != expected).float().mean() < 1e-3


@torch.no_grad()
def test_inclusive_boxes_are_mirrored_as_pixels():
    detector = detector_of(legacy_config)
    img, sample = view(image(), 1.0, 'horizontal')
    there = detected(detector, img, sample).bboxes
    (found,) = augmented(detector).test_step(together((img, sample)))
    back = found.pred_instances.bboxes
    assert back[:, 0].numpy() == pytest.approx((WIDTH - 1 - there[:, 2]).numpy(), abs=1e-4)
    assert torch.equal(back[:, 1::2], there[:, 1::2])


def merged_by_hand(found, at_most):
    """Greedy suppression within each class of all views' detections: (view, index) of what is left."""
    boxes, scores, labels = (torch.cat([each[key] for each in found]) for key in ('bboxes', 'scores', 'labels'))
    kept = []
    for candidate in scores.argsort(descending=True, stable=True).tolist():
        rivals = [rival for rival in kept if labels[rival] == labels[candidate]]
        if not rivals or box_iou(boxes[rivals], boxes[candidate : candidate + 1]).max() <= 0.5:
            kept.append(candidate)
    kept = kept[:at_most]
    return boxes[kept], scores[kept], labels[kept]


@pytest.mark.slow
@torch.no_grad()
@KINDS
def test_views_are_merged_as_by_hand(config):
    detector = detector_of(config)
    views = [view(image(), 1.0), view(image(), 1.5, 'horizontal'), view(image(), 1.25, 'diagonal')]
    found = [detected(detector, *each) for each in views]
    for instances, (_, sample) in zip(found, views, strict=True):
        instances.bboxes = mirrored(instances.bboxes, sample.flip_direction)
    boxes, scores, labels = merged_by_hand(found, 20)
    (merged,) = augmented(detector, 20).test_step(together(*views))
    merged = merged.pred_instances
    assert merged.bboxes.numpy() == pytest.approx(boxes.numpy(), abs=1e-4)
    assert torch.equal(merged.scores, scores) and torch.equal(merged.labels, labels)

    probabilities = torch.zeros(len(boxes), 28, 28)
    for img, sample in views:
        data = detector.data_preprocessor(dict(inputs=[img], data_samples=[sample.clone()]))
        feats = detector.roi_head.context(detector.extract_feat(data['inputs']))
        for k, box in enumerate(mirrored(boxes, sample.flip_direction)):
            roi = torch.tensor([[0, *(box * torch.tensor(sample.scale_factor * 2)).tolist()]])
            (mask,) = detector.roi_head.mask_probabilities(feats, roi, labels[k : k + 1])
            probabilities[k] += mask.flip(AXES[sample.flip_direction]) if sample.flip else mask
    expected = paste_masks(probabilities / len(views), boxes, (HEIGHT, WIDTH))
    assert expected.any() and (bitmaps(merged.masks) != expected).float().mean() < 1e-3


@torch.no_grad()
def test_images_of_a_batch_are_merged_by_themselves():
    model = augmented(detector_of(mask_rcnn_config))
    first, second = ([view(image(seed)), view(image(seed), 1.5, 'horizontal')] for seed in (0, 1))
    batch = dict(
        inputs=[[one[0], other[0]] for one, other in zip(first, second, strict=True)],
        data_samples=[[one[1].clone(), other[1].clone()] for one, other in zip(first, second, strict=True)],
    )
    for found, alone in zip(model.test_step(batch), (first, second), strict=True):
        (expected,) = model.test_step(together(*alone))
        assert found.pred_instances.bboxes.numpy() == pytest.approx(expected.pred_instances.bboxes.numpy(), abs=1e-3)
        differing = bitmaps(found.pred_instances.masks) != bitmaps(expected.pred_instances.masks)
        assert differing.float().mean() < 1e-3


@torch.no_grad()
@KINDS
def test_every_score_setting_is_merged_by_itself(config):
    detector = detector_of(config)
    counts = np.array([3, 500, 7, 900])
    names = tuple(f'class {label}' for label in range(NUM_CLASSES))
    frequency = ClassFrequency(names, counts, counts)
    build_calibrator(dict(type='SimCal', head='2fc_rand', threshold=100), detector, frequency)
    model = augmented(detector)
    views = [view(image()), view(image(), 1.5, 'horizontal')]
    detector.roi_head.score_settings = ['dual', 'base', 'calibrated']
    (found,) = model.test_step(together(*views))
    assert found.pred_instances.masks == found.pred_instances_dual.masks
    assert not torch.equal(found.pred_instances_calibrated.scores, found.pred_instances_base.scores)
    for setting in ('dual', 'base', 'calibrated'):
        detector.roi_head.score_settings = [setting]
        (alone,) = model.test_step(together(*views))
        together_with_others = found.get(f'pred_instances_{setting}')
        for key in ('bboxes', 'scores', 'labels'):
            assert torch.equal(together_with_others[key], alone.pred_instances[key])
        differing = bitmaps(together_with_others.masks) != bitmaps(alone.pred_instances.masks)
        assert differing.float().mean() < 1e-3


@torch.no_grad()
def test_no_detection_at_all():
    detector = detector_of(mask_rcnn_config)
    detector.roi_head.test_cfg.score_thr = 2.0
    (found,) = augmented(detector).test_step(together(view(image()), view(image(), 1.0, 'vertical')))
    assert len(found.pred_instances) == 0 and found.pred_instances.masks == []


def test_views_must_say_whether_they_are_flipped():
    img, sample = view(image())
    del sample.flip
    with pytest.raises(ConfigError, match="PackDetInputs must keep 'flip' and 'flip_direction'"):
        augmented(detector_of(mask_rcnn_config)).test_step(together((img, sample)))
