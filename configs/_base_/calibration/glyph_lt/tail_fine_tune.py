_base_ = '../tail_fine_tune.py'

calibration = dict(
    max_steps=880,
    param_scheduler=[dict(type='MultiStepLR', by_epoch=False, milestones=[616], gamma=0.1)],
    num_workers=1)
