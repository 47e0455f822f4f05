_base_ = '../glyph_lt/norcal_on_bags.py'

calibration = dict(
    choices=dict(gamma=[0.3, 0.6]),
    max_steps=2350,
    param_scheduler=[dict(type='MultiStepLR', by_epoch=False, milestones=[1560, 2150], gamma=0.1)])
