# For checkpoints of tools/model_converters/torchvision_detector.py: fasterrcnn_resnet50_fpn.
_base_ = 'mask-rcnn_r50_fpn_coco.py'

train_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='TorchvisionResize', min_size=800, max_size=1333),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')
]

model = dict(type='FasterRCNN', roi_head=dict(mask_roi_extractor=None, mask_head=None))

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

val_evaluator = dict(metric='bbox')
test_evaluator = val_evaluator
