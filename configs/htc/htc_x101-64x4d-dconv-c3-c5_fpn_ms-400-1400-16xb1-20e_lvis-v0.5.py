# The SimCal paper's strongest base: deformable convolutions, a semantic branch on COCO's stuffthingmaps, images of 400 to 1400
# pixels, 20 epochs; the learning rate is for 16 images a step (16 GPUs x 1).
_base_ = [
    '../_base_/models/htc_x101-64x4d-dconv-c3-c5_fpn_lvis-v0.5.py', '../_base_/datasets/lvis_v0.5_instance.py',
    '../_base_/schedules/schedule_1x.py', '../_base_/default_runtime.py'
]

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True, with_seg=True, poly2mask=False),
    dict(type='RandomResize', scale=[(1600, 400), (1600, 1400)], keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')
]
train_dataloader = dict(
    batch_size=1,
    dataset=dict(
        data_prefix=dict(img='images/train2017/', seg='stuffthingmaps/train2017/'), pipeline=train_pipeline))

train_cfg = dict(max_epochs=20, val_interval=20)
optim_wrapper = dict(optimizer=dict(lr=0.02))
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=20, milestones=[16, 19], gamma=0.1)
]
