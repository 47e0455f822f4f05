# The released class-wise detector, with a calibrated head: docs/released_models.md.
_base_ = [
    '../../_base_/models/mask-rcnn_r50_fpn_mmdet-v1.py', '../../_base_/datasets/lvis_v0.5_instance_mmdet-v1.py',
    '../../_base_/schedules/schedule_1x.py', '../../_base_/default_runtime.py'
]

model = dict(
    roi_head=dict(bbox_head=dict(num_classes=1230), mask_head=dict(num_classes=1230)),
    test_cfg=dict(rcnn=dict(score_thr=0.0, max_per_img=300)))
