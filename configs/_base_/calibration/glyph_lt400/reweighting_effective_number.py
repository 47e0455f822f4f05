_base_ = '../glyph_lt/reweighting_effective_number.py'

calibration = dict(
    max_steps=2350, param_scheduler=[dict(type='MultiStepLR', by_epoch=False, milestones=[1560, 2150], gamma=0.1)])
