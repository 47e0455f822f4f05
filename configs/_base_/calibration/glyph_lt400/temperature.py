_base_ = '../temperature.py'

calibration = dict(choices=dict(temperature=[0.5, 1.0, 1.5]))
