_base_ = 'mask-rcnn_r50_fpn_1x_lvis-v1.py'

model = dict(
    roi_head=dict(bbox_head=dict(reg_class_agnostic=True), mask_head=dict(class_agnostic=True)))
