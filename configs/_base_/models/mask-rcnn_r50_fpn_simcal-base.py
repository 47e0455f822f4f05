# The detector that the SimCal paper trains and then calibrates: mmdetection's Mask R-CNN, with the box losses and the number
# of training proposals that the paper's release used and mmdetection has changed since.
_base_ = 'mask-rcnn_r50_fpn.py'

model = dict(
    rpn_head=dict(loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=1 / 9, loss_weight=1.0)),
    roi_head=dict(bbox_head=dict(loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=1.0, loss_weight=1.0))),
    train_cfg=dict(rpn_proposal=dict(max_per_img=2000)))
