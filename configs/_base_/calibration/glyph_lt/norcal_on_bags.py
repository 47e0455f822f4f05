_base_ = 'last_layer.py'

calibration = dict(calibrator=dict(type='NorCal', gamma=0.3, on=dict(type='BAGS')))
