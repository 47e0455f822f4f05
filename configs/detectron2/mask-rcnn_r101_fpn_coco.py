_base_ = 'mask-rcnn_r50_fpn_coco.py'

model = dict(backbone=dict(depth=101))
