_base_ = '../simcal_800steps.py'

calibration = dict(
    calibrator=dict(_delete_=True, type='NorCal', gamma=0.3, on=dict(type='SimCal'), on_scores='calibrated'),
    choices=dict(gamma=[0.3, 0.6]))
