_base_ = '../simcal_800steps.py'

calibration = dict(
    calibrator=dict(
        _delete_=True,
        type='DualHead',
        rare=dict(type='NorCal', gamma=0.3, on=dict(type='SimCal'), on_scores='calibrated'),
        others=dict(type='NorCal', gamma=0.4)),
    choices={'rare.gamma': [0.1, 0.3, 0.5], 'others.gamma': [0.2, 0.4, 0.6]})
