_base_ = '../norcal.py'

calibration = dict(choices=dict(gamma=[0.2, 0.4, 0.6, 0.8]))
