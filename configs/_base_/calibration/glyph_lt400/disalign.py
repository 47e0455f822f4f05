_base_ = '../glyph_lt/disalign.py'

calibration = dict(
    max_steps=1000, param_scheduler=[dict(type='MultiStepLR', by_epoch=False, milestones=[890], gamma=0.1)])
