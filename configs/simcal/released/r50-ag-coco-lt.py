# The released detector of COCO-LT, with a calibrated head that is heard at T = 400: docs/released_models.md.
_base_ = [
    '../../_base_/models/mask-rcnn_r50_fpn_mmdet-v1.py', '../../_base_/datasets/coco_lt_instance.py',
    '../../_base_/schedules/schedule_1x.py', '../../_base_/default_runtime.py'
]

model = dict(
    roi_head=dict(bbox_head=dict(reg_class_agnostic=True), mask_head=dict(class_agnostic=True)))

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LegacyResize', scale=(1333, 800)),
    dict(type='PackDetInputs')
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='LegacyCocoMetric')
test_evaluator = val_evaluator
