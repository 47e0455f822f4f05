_base_ = ['smoke_base.py', '../_base_/calibration/simcal.py']

calibration = dict(max_steps=4, num_workers=1)
