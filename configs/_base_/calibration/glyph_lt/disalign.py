_base_ = '../disalign.py'

calibration = dict(
    max_steps=450,
    param_scheduler=[dict(type='MultiStepLR', by_epoch=False, milestones=[400], gamma=0.1)],
    num_workers=1)
