# Mask R-CNN as detectron2 computes it: Caffe2's pixels (BGR, 0..255) and strides, its box decoding.
_base_ = 'mask-rcnn_r50_fpn.py'

model = dict(
    data_preprocessor=dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False),
    backbone=dict(style='caffe', norm_cfg=dict(type='BN', requires_grad=False), init_cfg=None),
    rpn_head=dict(bbox_coder=dict(type='Box2BoxTransform')),
    roi_head=dict(bbox_head=dict(bbox_coder=dict(type='Box2BoxTransform'))),
    test_cfg=dict(rcnn=dict(min_bbox_size=0, shift_classes=False)))
