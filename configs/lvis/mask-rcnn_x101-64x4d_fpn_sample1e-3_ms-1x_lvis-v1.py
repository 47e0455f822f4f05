_base_ = 'mask-rcnn_x101-32x4d_fpn_sample1e-3_ms-1x_lvis-v1.py'

model = dict(backbone=dict(groups=64, init_cfg=dict(checkpoint='torchvision://resnext101_64x4d')))
