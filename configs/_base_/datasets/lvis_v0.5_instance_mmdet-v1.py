# LVIS v0.5 for detectors of mmdetection 1.x: images scaled and detections measured as it did.
_base_ = 'lvis_v0.5_instance.py'

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LegacyResize', scale=(1333, 800)),
    dict(type='PackDetInputs')
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='LegacyLVISMetric')
test_evaluator = val_evaluator
