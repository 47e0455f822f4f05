# Learnable weight scaling (ICLR 2020), as in EQL v2's code.
_base_ = 'crt.py'

calibration = dict(calibrator=dict(type='LWS'))
