# ACSL (CVPR 2021).
_base_ = 'last_layer.py'

calibration = dict(
    calibrator=dict(type='ACSL', score_thr=0.7), optim_wrapper=dict(optimizer=dict(lr=0.02)))
