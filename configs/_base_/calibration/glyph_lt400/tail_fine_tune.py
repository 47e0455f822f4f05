_base_ = '../glyph_lt/tail_fine_tune.py'

calibration = dict(
    max_steps=1960, param_scheduler=[dict(type='MultiStepLR', by_epoch=False, milestones=[1370], gamma=0.1)])
