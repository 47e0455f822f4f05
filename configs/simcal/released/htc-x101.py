# The released Hybrid Task Cascade, with a calibrated head for every stage: docs/released_models.md.
_base_ = [
    '../../_base_/models/htc_x101-64x4d-dconv-c3-c5_fpn_lvis-v0.5.py',
    '../../_base_/datasets/lvis_v0.5_instance_mmdet-v1.py',
    '../../_base_/schedules/schedule_1x.py',
    '../../_base_/default_runtime.py',
]

legacy_roi_extractor = dict(
    type='LegacySingleRoIExtractor', roi_layer=dict(type='LegacyRoIAlign', sampling_ratio=2))

model = dict(
    backbone=dict(init_cfg=dict(checkpoint='open-mmlab://resnext101_64x4d')),
    rpn_head=dict(
        anchor_generator=dict(type='LegacyAnchorGenerator', center_offset=0.5),
        bbox_coder=dict(type='LegacyDeltaXYWHBBoxCoder')),
    roi_head=dict(
        type='LegacyHybridTaskCascadeRoIHead',
        bbox_roi_extractor=legacy_roi_extractor,
        bbox_head=[
            dict(
                type='Shared2FCBBoxHead',
                in_channels=256,
                fc_out_channels=1024,
                roi_feat_size=7,
                num_classes=1230,
                bbox_coder=dict(
                    type='LegacyDeltaXYWHBBoxCoder', target_means=[0.0, 0.0, 0.0, 0.0], target_stds=stds),
                reg_class_agnostic=True,
                loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
                loss_bbox=dict(type='SmoothL1Loss', beta=1.0, loss_weight=1.0))
            for stds in ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067])
        ],
        mask_roi_extractor=legacy_roi_extractor,
        semantic_roi_extractor=legacy_roi_extractor),
    train_cfg=dict(rpn_proposal=dict(nms=dict(offset=1), min_bbox_size=-1)),
    test_cfg=dict(
        rpn=dict(nms=dict(offset=1), min_bbox_size=-1),
        rcnn=dict(nms=dict(offset=1), shift_classes=False)))
