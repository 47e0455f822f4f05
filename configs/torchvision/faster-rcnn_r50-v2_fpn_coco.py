# For checkpoints of tools/model_converters/torchvision_detector.py: fasterrcnn_resnet50_fpn_v2.
_base_ = 'faster-rcnn_r50_fpn_coco.py'

norm_cfg = dict(type='BN', requires_grad=True)

model = dict(
    neck=dict(norm_cfg=norm_cfg),
    rpn_head=dict(num_convs=2),
    roi_head=dict(bbox_head=dict(type='Shared4Conv1FCBBoxHead', norm_cfg=norm_cfg)))
