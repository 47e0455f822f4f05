# SimCal's dual-head rule with NorCal on both sides: rare classes by its calibrated head, the others by the base.
_base_ = 'simcal.py'

calibration = dict(
    calibrator=dict(
        _delete_=True,
        type='DualHead',
        threshold=100,
        rare=dict(type='NorCal', gamma=0.3, on=dict(type='SimCal', head='3fc_ft'), on_scores='calibrated'),
        others=dict(type='NorCal', gamma=0.4)),
    choices={'threshold': [30, 100, 300], 'rare.gamma': [0.1, 0.3, 0.5], 'others.gamma': [0.2, 0.4, 0.6]})
