# Instance-aware repeat factors (arXiv 2305.08069): of two classes in as many images, the one with fewer instances comes more often.
_base_ = 'mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py'

train_dataloader = dict(dataset=dict(instance_aware=True))
