# Focal loss (ICCV 2017), one sigmoid for each class.
_base_ = 'mask-rcnn_r50_fpn_random-ms-1x_lvis-v1.py'

model = dict(roi_head=dict(bbox_head=dict(loss_cls=dict(_delete_=True, type='FocalCustomLoss', num_classes=1203))))
