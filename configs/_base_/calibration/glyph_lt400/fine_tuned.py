_base_ = '../simcal_800steps.py'

calibration = dict(calibrator=dict(_delete_=True, type='FineTuned'))
