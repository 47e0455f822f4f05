_base_ = 'mask-rcnn_r50_fpn_lvis-v1.py'

model = dict(backbone=dict(depth=101))
