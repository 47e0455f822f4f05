# Temperature scaling (ICML 2017) of the base's scores.
calibration = dict(calibrator=dict(type='Temperature', temperature=1.0))
