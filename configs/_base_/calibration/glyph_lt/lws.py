_base_ = 'crt.py'

calibration = dict(calibrator=dict(type='LWS'))
