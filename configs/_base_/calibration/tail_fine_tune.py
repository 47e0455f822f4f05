# Fine-tuning on rare classes, as published next to BAGS (CVPR 2020): 10 epochs, a drop after 7.
_base_ = 'last_layer.py'

calibration = dict(
    calibrator=dict(type='TailFineTune', threshold=100),
    sampler=dict(_delete_=True, type='BiLevelSampler', classes_per_step=16, fewer_than=100),
    max_steps=35460,
    optim_wrapper=dict(optimizer=dict(lr=0.0001)),
    param_scheduler=[dict(type='MultiStepLR', by_epoch=False, milestones=[24822], gamma=0.1)])
