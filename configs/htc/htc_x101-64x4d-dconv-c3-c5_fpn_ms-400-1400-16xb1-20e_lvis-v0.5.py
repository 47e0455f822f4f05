# The SimCal paper's strongest base: deformable convolutions, a semantic branch on COCO's stuffthingmaps, images of 400 to 1400
# pixels, 20 epochs; the learning rate is for 16 images a step (16 GPUs x 1).
_base_ = [
    '../_base_/models/htc_r50_fpn.py', '../_base_/datasets/lvis_v0.5_instance.py',
    '../_base_/schedules/schedule_1x.py', '../_base_/default_runtime.py'
]

model = dict(
    backbone=dict(
        type='ResNeXt',
        depth=101,
        groups=64,
        base_width=4,
        dcn=dict(type='DCN', deform_groups=1),
        stage_with_dcn=(False, True, True, True),
        init_cfg=dict(checkpoint='torchvision://resnext101_64x4d')),
    roi_head=dict(
        bbox_head=[
            dict(
                type='Shared2FCBBoxHead',
                in_channels=256,
                fc_out_channels=1024,
                roi_feat_size=7,
                num_classes=1230,
                bbox_coder=dict(
                    type='DeltaXYWHBBoxCoder', target_means=[0.0, 0.0, 0.0, 0.0], target_stds=stds),
                reg_class_agnostic=True,
                loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
                loss_bbox=dict(type='SmoothL1Loss', beta=1.0, loss_weight=1.0))
            for stds in ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067])
        ],
        mask_head=[
            dict(
                type='HTCMaskHead',
                with_conv_res=with_conv_res,
                num_convs=4,
                in_channels=256,
                conv_out_channels=256,
                num_classes=1230,
                loss_mask=dict(type='CrossEntropyLoss', use_mask=True, loss_weight=1.0))
            for with_conv_res in (False, True, True)
        ]),
    test_cfg=dict(rcnn=dict(score_thr=0.0, max_per_img=300)))

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
