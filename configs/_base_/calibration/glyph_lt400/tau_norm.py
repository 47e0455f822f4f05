_base_ = '../tau_norm.py'

calibration = dict(choices=dict())
