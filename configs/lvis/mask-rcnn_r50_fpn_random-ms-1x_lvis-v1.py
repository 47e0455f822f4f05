# The base of the authors of EQL and EQL v2: images drawn as they come, softmax cross entropy.
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn.py', '../_base_/datasets/lvis_v1_instance_ms.py',
    '../_base_/schedules/schedule_mmdet_1x.py', '../_base_/default_runtime.py'
]

model = dict(
    roi_head=dict(bbox_head=dict(num_classes=1203), mask_head=dict(num_classes=1203)),
    test_cfg=dict(rcnn=dict(score_thr=0.0001, max_per_img=300)))
