_base_ = '../simcal_800steps.py'

calibration = dict(
    calibrator=dict(
        _delete_=True,
        type='MeanScores',
        first=dict(type='SimCal'),
        first_scores='calibrated',
        second=dict(type='NorCal', gamma=0.6)),
    choices={'second.gamma': [0.4, 0.6]})
