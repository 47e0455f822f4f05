_base_ = '../simcal_800steps.py'

calibration = dict(choices=dict(threshold=[30, 100]))
