# Classifier re-training (ICLR 2020) with class-aware images, as in EQL v2's code: lr 0.02 for 16 images, 12 epochs.
_base_ = 'last_layer.py'

calibration = dict(
    calibrator=dict(type='CRT'),
    sampler=dict(_delete_=True, type='BiLevelSampler', classes_per_step=16),
    optim_wrapper=dict(optimizer=dict(lr=0.02)))
