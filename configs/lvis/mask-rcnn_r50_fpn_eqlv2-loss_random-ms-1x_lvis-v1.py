# Equalization loss v2 (CVPR 2021): positive and negative gradients of a class are kept in balance.
_base_ = 'mask-rcnn_r50_fpn_random-ms-1x_lvis-v1.py'

model = dict(roi_head=dict(bbox_head=dict(loss_cls=dict(_delete_=True, type='EQLV2Loss', num_classes=1203))))
