# SimCal in 800 steps: for a small data set and a CPU.
_base_ = 'simcal.py'

calibration = dict(
    max_steps=800,
    param_scheduler=[dict(type='MultiStepLR', by_epoch=False, milestones=[480, 680], gamma=0.1)],
    num_workers=1)
