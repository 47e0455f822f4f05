"""The losses of one training step are mmdetection's, from the annotation file on.

RECORDED is what mmdetection 3.5.1 computed with this file's own `losses_of_step`, in single precision: small detectors
with made-up weights, images, polygons and semantic maps, and samplers that keep every RoI, so that nothing is left to
chance. Ours are computed in double precision, so that nothing is left to a processor's rounding either.
"""
import hashlib
import json

import mmcv
import numpy as np
import pytest
import torch
from double_precision import in_double_precision
from mmengine.config import ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope

import mmdet.models  # noqa: F401  (registers the components)
from mmdet.datasets import CocoDataset
from mmdet.registry import MODELS

RECORDED = {
    ('mask_rcnn', False): {
        'loss_rpn_cls': 3.117489,
        'loss_rpn_bbox': 0.006992902,
        'loss_cls': 1.856963,
        'acc': 34.46602,
        'loss_bbox': 0.7135251,
        'loss_mask': 0.7527949,
    },
    ('mask_rcnn', True): {
        'loss_rpn_cls': 3.117489,
        'loss_rpn_bbox': 0.006992902,
        'loss_cls': 1.856963,
        'acc': 34.46602,
        'loss_bbox': 0.7135251,
        'loss_mask': 0.7514341,
    },
    ('cascade', False): {
        'loss_rpn_cls': 3.117489,
        'loss_rpn_bbox': 0.006992902,
        's0.loss_cls': 3.046154,
        's0.acc': 2.184466,
        's0.loss_bbox': 0.7498856,
        's0.loss_mask': 0.7698305,
        's1.loss_cls': 2.006427,
        's1.acc': 0.2427184,
        's1.loss_bbox': 0.1075639,
        's1.loss_mask': 0.3954767,
        's2.loss_cls': 0.8052163,
        's2.acc': 0.9708738,
        's2.loss_bbox': 0.05544207,
        's2.loss_mask': 0.1999252,
    },
    ('htc', True): {
        'loss_rpn_cls': 3.117489,
        'loss_rpn_bbox': 0.006992902,
        'loss_semantic_seg': 1.085821,
        's0.loss_cls': 2.692789,
        's0.acc': 0.4854369,
        's0.loss_bbox': 0.7414787,
        's0.loss_mask': 0.8390605,
        's1.loss_cls': 3.004315,
        's1.acc': 0.0,
        's1.loss_bbox': 0.2474087,
        's1.loss_mask': 0.4238071,
        's2.loss_cls': 1.556453,
        's2.acc': 0.0,
        's2.loss_bbox': 0.0963564,
        's2.loss_mask': 0.191484,
    },
    ('seesaw', False): {
        'loss_rpn_cls': 3.117489,
        'loss_rpn_bbox': 0.006992902,
        'loss_cls_objectness': 0.5806119,
        'loss_cls_classes': 0.7185441,
        'acc_objectness': 73.54369,
        'acc_classes': 0.0,
        'loss_bbox': 0.7135251,
        'loss_mask': 1.377349,
    },
}
CLASSES = tuple(f'class {i}' for i in range(12))
STRIDES = [4, 8, 16, 32]
WIDTH = 32


@pytest.mark.parametrize(('kind', 'poly2mask'), list(RECORDED))
def test_losses_are_mmdetections(tmp_path, kind, poly2mask):
    losses = losses_of_step(tmp_path, kind, poly2mask)
    assert losses == pytest.approx(RECORDED[kind, poly2mask], rel=2e-6)


def losses_of_step(folder, kind, poly2mask):
    """Every loss of one step on two images, by its name."""
    init_default_scope('mmdet')
    write_data(folder)
    semantic = kind == 'htc'
    dataset = CocoDataset(
        ann_file=str(folder / 'annotations.json'),
        data_prefix=dict(img=f'{folder}/images/', **(dict(seg=f'{folder}/semantic/') if semantic else {})),
        metainfo=dict(classes=CLASSES),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True, with_seg=semantic, poly2mask=poly2mask),
            dict(type='Resize', scale=(200, 150), keep_ratio=True),
            dict(type='RandomFlip', prob=1.0),
            dict(type='PackDetInputs'),
        ],
    )
    detector = in_double_precision(MODELS.build(detector_config(kind)))
    shapes = {name: tensor.shape for name, tensor in detector.state_dict().items()}
    detector.load_state_dict({name: made_up_weight(name, shape) for name, shape in shapes.items()})
    detector.train()
    batch = detector.data_preprocessor(pseudo_collate([dataset[0], dataset[1]]), True)
    losses = detector(**batch, mode='loss')
    return {name: sum(loss if isinstance(loss, list) else [loss]).item() for name, loss in losses.items()}


def made_up_weight(name, shape):
    """A pure function of name and shape; seesaw's counters are counts, and every norm does something."""
    rng = np.random.default_rng(list(hashlib.sha256(name.encode()).digest()))
    if name.endswith('num_batches_tracked'):
        return torch.zeros(shape, dtype=torch.int64)
    if name.endswith('cum_samples'):
        return torch.from_numpy(rng.integers(0, 1000, shape)).float()
    values = torch.from_numpy(np.asarray(rng.standard_normal(shape))).float()
    if name.endswith('running_var') or (name.endswith('weight') and len(shape) == 1):
        return 1 + 0.1 * values.abs()
    return values * (1.05 / np.prod(shape[1:]) ** 0.5 if len(shape) > 1 else 0.05)


def write_data(folder):
    """Two images of noise with polygons of one and of two parts, and semantic maps of 40 pixel squares."""
    rng = np.random.default_rng(0)
    for name in ('images', 'semantic'):
        (folder / name).mkdir()
    images, annotations = [], []
    for image_id, (height, width) in enumerate([(120, 180), (160, 130)], start=1):
        images.append(dict(id=image_id, file_name=f'{image_id}.png', height=height, width=width))
        coarse = rng.integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
        mmcv.imwrite(coarse.repeat(10, 0).repeat(10, 1), str(folder / f'images/{image_id}.png'))
        labels = rng.integers(0, 9, (height // 40 + 1, width // 40 + 1), dtype=np.uint8)
        labels[0, 0] = 255
        labels = labels.repeat(40, 0).repeat(40, 1)[:height, :width]
        mmcv.imwrite(labels, str(folder / f'semantic/{image_id}.png'))
        for number in range(6):
            polygons = made_up_polygons(rng, width, height, parts=1 + number % 2)
            corners = np.concatenate(polygons).reshape(-1, 2)
            (x1, y1), (x2, y2) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=int(rng.integers(len(CLASSES))) + 1,
                    iscrowd=0,
                    area=(x2 - x1) * (y2 - y1),
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    segmentation=[polygon.tolist() for polygon in polygons],
                )
            )
    categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES, start=1)]
    record = dict(images=images, annotations=annotations, categories=categories)
    (folder / 'annotations.json').write_text(json.dumps(record))


def made_up_polygons(rng, width, height, parts):
    centre = rng.uniform(0.25, 0.75, 2) * (width, height)
    radius = rng.uniform(0.1, 0.4) * height
    polygons = []
    for part in range(parts):
        angle = np.sort(rng.uniform(0, 2 * np.pi, 8))
        reach = radius * rng.uniform(0.5, 1, 8)
        points = centre + [1.3 * radius * part, 0] + np.stack([np.cos(angle), np.sin(angle)], 1) * reach[:, None]
        polygons.append(points.clip(0, [width, height]).round(2).ravel())
    return polygons


def detector_config(kind):
    coder = dict(type='DeltaXYWHBBoxCoder')
    stages = 1 if kind in ('mask_rcnn', 'seesaw') else 3
    rcnn = [
        dict(
            assigner=assigner(iou, iou, iou, match_low_quality=stages == 1),
            sampler=keep_all(add_gt_as_proposals=True),
            mask_size=28,
            pos_weight=-1,
        )
        for iou in (0.5, 0.6, 0.7)[:stages]
    ]
    config = dict(
        type='MaskRCNN',
        data_preprocessor=dict(
            type='DetDataPreprocessor',
            mean=[123.675, 116.28, 103.53],
            std=[58.395, 57.12, 57.375],
            bgr_to_rgb=True,
            pad_mask=True,
            pad_seg=True,
            pad_size_divisor=32,
        ),
        backbone=dict(type='ResNet', depth=18, base_channels=16, norm_eval=True),
        neck=dict(type='FPN', in_channels=[16, 32, 64, 128], out_channels=WIDTH, num_outs=5),
        rpn_head=dict(
            type='RPNHead',
            in_channels=WIDTH,
            feat_channels=WIDTH,
            anchor_generator=dict(
                type='AnchorGenerator', scales=[4], ratios=[0.5, 1.0, 2.0], strides=[*STRIDES, 64]
            ),
            bbox_coder=coder,
            loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True),
            loss_bbox=dict(type='SmoothL1Loss', beta=1 / 9),
        ),
        roi_head=roi_head_config(kind, stages, coder),
        train_cfg=dict(
            rpn=dict(
                assigner=assigner(0.7, 0.3, 0.3, match_low_quality=True),
                sampler=keep_all(add_gt_as_proposals=False),
                allowed_border=-1,
                pos_weight=-1,
            ),
            rpn_proposal=dict(nms_pre=500, max_per_img=200, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0),
            rcnn=rcnn if stages > 1 else rcnn[0],
        ),
        test_cfg=dict(
            rpn=dict(nms_pre=500, max_per_img=200, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0),
            rcnn=dict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=100, mask_thr_binary=0.5),
        ),
    )
    return ConfigDict(config, type=dict(cascade='CascadeRCNN', htc='HybridTaskCascade').get(kind, 'MaskRCNN'))


def assigner(pos_iou, neg_iou, min_pos_iou, match_low_quality):
    return dict(
        type='MaxIoUAssigner',
        pos_iou_thr=pos_iou,
        neg_iou_thr=neg_iou,
        min_pos_iou=min_pos_iou,
        match_low_quality=match_low_quality,
        ignore_iof_thr=-1,
    )


def keep_all(add_gt_as_proposals):
    return dict(type='RandomSampler', num=10**6, pos_fraction=1.0, add_gt_as_proposals=add_gt_as_proposals)


def roi_extractor(size, strides):
    return dict(
        type='SingleRoIExtractor',
        roi_layer=dict(type='RoIAlign', output_size=size, sampling_ratio=0),
        out_channels=WIDTH,
        featmap_strides=strides,
    )


def roi_head_config(kind, stages, coder):
    bbox_head = dict(
        type='Shared2FCBBoxHead',
        in_channels=WIDTH,
        fc_out_channels=64,
        roi_feat_size=7,
        num_classes=len(CLASSES),
        bbox_coder=dict(coder, target_stds=[0.1, 0.1, 0.2, 0.2]),
        reg_class_agnostic=stages > 1,
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False),
        loss_bbox=dict(type='SmoothL1Loss', beta=1.0) if stages > 1 else dict(type='L1Loss'),
    )
    mask_head = dict(
        type='FCNMaskHead',
        num_convs=2,
        in_channels=WIDTH,
        conv_out_channels=WIDTH,
        num_classes=len(CLASSES),
        loss_mask=dict(type='CrossEntropyLoss', use_mask=True),
    )
    if kind == 'seesaw':
        bbox_head.update(
            cls_predictor_cfg=dict(type='NormedLinear', temperature=20),
            loss_cls=dict(type='SeesawLoss', p=0.8, q=2.0, num_classes=len(CLASSES)),
        )
        mask_head.update(predictor_cfg=dict(type='NormedConv2d', temperature=20))
    config = dict(
        type='StandardRoIHead',
        bbox_roi_extractor=roi_extractor(7, STRIDES),
        bbox_head=bbox_head,
        mask_roi_extractor=roi_extractor(14, STRIDES),
        mask_head=mask_head,
    )
    if stages > 1:
        config.update(
            type='CascadeRoIHead', num_stages=stages, stage_loss_weights=[1, 0.5, 0.25], bbox_head=[bbox_head] * stages
        )
    if kind == 'htc':
        config.update(
            type='HybridTaskCascadeRoIHead',
            mask_head=[
                dict(mask_head, type='HTCMaskHead', with_conv_res=stage > 0) for stage in range(stages)
            ],
            semantic_roi_extractor=roi_extractor(14, [8]),
            semantic_head=dict(
                type='FusedSemanticHead',
                num_ins=5,
                fusion_level=1,
                seg_scale_factor=1 / 8,
                num_convs=2,
                in_channels=WIDTH,
                conv_out_channels=WIDTH,
                num_classes=9,
                loss_seg=dict(type='CrossEntropyLoss', ignore_index=255, loss_weight=0.2),
            ),
        )
    return config
