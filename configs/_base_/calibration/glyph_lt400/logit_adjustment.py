_base_ = '../logit_adjustment.py'

calibration = dict(choices=dict(tau=[0.1, 0.2, 1.0]))
