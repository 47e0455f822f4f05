# 128 photographs of COCO, learnt by heart: the road on real polygons, crowds and sizes (docs/real_photos.md).
_base_ = '../quickstart/base.py'

data_root = 'data/coco128/'
num_classes = 80
scale = (256, 256)
max_iters = 2000
warmup = 100

model = dict(
    rpn_head=dict(anchor_generator=dict(scales=[4, 8])),
    roi_head=dict(bbox_head=dict(num_classes=num_classes), mask_head=dict(num_classes=num_classes)),
    # COCO's settings, with which the figures of docs/real_photos.md were measured.
    test_cfg=dict(rcnn=dict(score_thr=0.05, max_per_img=100)))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='PackDetInputs')
]
dataset = dict(type='LVISV1Dataset', data_root=data_root, ann_file='lvis.json')
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **dataset))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline, **dataset))
test_evaluator = dict(ann_file=data_root + 'lvis.json')

train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=warmup),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=False, begin=warmup, end=max_iters)
]
