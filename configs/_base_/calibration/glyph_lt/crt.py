_base_ = 'last_layer.py'

calibration = dict(
    calibrator=dict(type='CRT'),
    sampler=dict(_delete_=True, type='BiLevelSampler', classes_per_step=16),
    optim_wrapper=dict(optimizer=dict(lr=0.02)))
