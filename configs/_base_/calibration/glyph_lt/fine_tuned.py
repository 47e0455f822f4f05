_base_ = '../simcal_400steps.py'

calibration = dict(calibrator=dict(_delete_=True, type='FineTuned'))
