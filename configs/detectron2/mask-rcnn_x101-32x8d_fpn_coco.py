# Not Caffe2's strides, and pixels divided by their deviation.
_base_ = 'mask-rcnn_r50_fpn_coco.py'

model = dict(
    data_preprocessor=dict(std=[57.375, 57.12, 58.395]),
    backbone=dict(type='ResNeXt', depth=101, groups=32, base_width=8, style='pytorch'))
