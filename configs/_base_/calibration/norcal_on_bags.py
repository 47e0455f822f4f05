# NorCal's rule on the scores of balanced group softmax.
_base_ = 'bags.py'

calibration = dict(calibrator=dict(_delete_=True, type='NorCal', gamma=0.3, on=dict(type='BAGS')))
