# Balanced group softmax (CVPR 2020).
_base_ = 'last_layer.py'

calibration = dict(calibrator=dict(type='BAGS', edges=[10, 100, 1000], others_ratio=8.0))
