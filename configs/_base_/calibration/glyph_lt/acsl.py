_base_ = 'last_layer.py'

calibration = dict(calibrator=dict(type='ACSL'), optim_wrapper=dict(optimizer=dict(lr=0.02)))
