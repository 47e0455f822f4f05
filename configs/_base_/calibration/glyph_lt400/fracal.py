_base_ = '../fracal.py'

calibration = dict(choices=dict(dimension_power=[1.0, 2.0]))
