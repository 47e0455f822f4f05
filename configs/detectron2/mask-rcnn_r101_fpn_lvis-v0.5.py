_base_ = 'mask-rcnn_r50_fpn_lvis-v0.5.py'

model = dict(backbone=dict(depth=101))
