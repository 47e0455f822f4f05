_base_ = ['base.py', '../_base_/calibration/simcal.py']

calibration = dict(
    max_steps=400,
    param_scheduler=[dict(type='MultiStepLR', by_epoch=False, milestones=[240, 340], gamma=0.1)],
    num_workers=1)
