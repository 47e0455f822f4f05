# NorCal (NeurIPS 2021): counts of training images alone.
calibration = dict(calibrator=dict(type='NorCal', gamma=0.6))
