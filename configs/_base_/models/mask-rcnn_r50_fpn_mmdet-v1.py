# Mask R-CNN as mmdetection 1.x computed it: inclusive boxes, whole anchors, RoIAlign without the half-pixel shift. Published
# models of that time detect here what they detected there; tools/model_converters/simcal_release.py converts them.
_base_ = 'mask-rcnn_r50_fpn_simcal-base.py'

model = dict(
    rpn_head=dict(
        anchor_generator=dict(type='LegacyAnchorGenerator', center_offset=0.5),
        bbox_coder=dict(type='LegacyDeltaXYWHBBoxCoder')),
    roi_head=dict(
        type='LegacyStandardRoIHead',
        bbox_roi_extractor=dict(
            type='LegacySingleRoIExtractor', roi_layer=dict(type='LegacyRoIAlign', sampling_ratio=2)),
        bbox_head=dict(bbox_coder=dict(type='LegacyDeltaXYWHBBoxCoder')),
        mask_roi_extractor=dict(
            type='LegacySingleRoIExtractor', roi_layer=dict(type='LegacyRoIAlign', sampling_ratio=2))),
    train_cfg=dict(rpn_proposal=dict(nms=dict(offset=1), min_bbox_size=-1)),
    test_cfg=dict(
        rpn=dict(nms=dict(offset=1), min_bbox_size=-1),
        rcnn=dict(nms=dict(offset=1), shift_classes=False)))
