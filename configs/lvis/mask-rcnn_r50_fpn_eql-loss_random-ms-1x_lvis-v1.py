# Equalization loss (CVPR 2020): objects of other classes do not push the tail down.
_base_ = 'mask-rcnn_r50_fpn_random-ms-1x_lvis-v1.py'

model = dict(roi_head=dict(bbox_head=dict(loss_cls=dict(_delete_=True, type='EQLLoss', lambda_=0.0011))))
