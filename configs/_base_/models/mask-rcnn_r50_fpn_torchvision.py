# Mask R-CNN as torchvision computes it: its anchors, box decoding, RoIAlign and mask paste.
_base_ = 'mask-rcnn_r50_fpn.py'

roi_layer = dict(sampling_ratio=2, aligned=False)

model = dict(
    backbone=dict(init_cfg=None),
    rpn_head=dict(
        anchor_generator=dict(type='TorchvisionAnchorGenerator'), bbox_coder=dict(type='Box2BoxTransform')),
    roi_head=dict(
        type='TorchvisionRoIHead',
        bbox_roi_extractor=dict(roi_layer=roi_layer),
        bbox_head=dict(bbox_coder=dict(type='Box2BoxTransform')),
        mask_roi_extractor=dict(roi_layer=roi_layer)),
    test_cfg=dict(rpn=dict(min_bbox_size=1e-3), rcnn=dict(min_bbox_size=1e-2, shift_classes=False)))
