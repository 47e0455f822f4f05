# The methods of the last layer on GlyphLT: 12 epochs, 88 steps of 16 images each.
_base_ = '../last_layer.py'

calibration = dict(
    max_steps=1056,
    param_scheduler=[dict(type='MultiStepLR', by_epoch=False, milestones=[704, 968], gamma=0.1)],
    num_workers=1)
