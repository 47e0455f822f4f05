_base_ = 'last_layer.py'

calibration = dict(calibrator=dict(type='ReWeighting'))
