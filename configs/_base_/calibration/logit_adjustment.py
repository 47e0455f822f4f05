# Logit adjustment (ICLR 2021): counts of training instances alone.
calibration = dict(calibrator=dict(type='LogitAdjustment', tau=1.0))
