# The mean of SimCal's calibrated scores and NorCal's on the base.
_base_ = 'simcal.py'

calibration = dict(
    calibrator=dict(
        _delete_=True,
        type='MeanScores',
        first=dict(type='SimCal', head='3fc_ft'),
        first_scores='calibrated',
        second=dict(type='NorCal', gamma=0.6)),
    choices={'second.gamma': [0.2, 0.4, 0.6, 0.8]})
