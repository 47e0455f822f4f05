# DisAlign (CVPR 2021): 4,500 steps of 16 images, a drop after 4,000.
_base_ = 'last_layer.py'

calibration = dict(
    calibrator=dict(type='DisAlign', scale=0.8),
    max_steps=4500,
    optim_wrapper=dict(optimizer=dict(lr=0.02)),
    param_scheduler=[dict(type='MultiStepLR', by_epoch=False, milestones=[4000], gamma=0.1)])
