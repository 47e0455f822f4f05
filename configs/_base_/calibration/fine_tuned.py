# The base's last layer trained further on SimCal's RoIs: SimCal without new layers.
_base_ = 'simcal.py'

calibration = dict(calibrator=dict(_delete_=True, type='FineTuned'))
