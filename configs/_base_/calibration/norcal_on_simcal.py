# NorCal's rule on SimCal's calibrated scores.
_base_ = 'simcal.py'

calibration = dict(
    calibrator=dict(
        _delete_=True, type='NorCal', gamma=0.3, on=dict(type='SimCal', head='3fc_ft'), on_scores='calibrated'))
