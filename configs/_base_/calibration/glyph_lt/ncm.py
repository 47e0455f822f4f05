_base_ = '../ncm.py'

calibration = dict(max_steps=88, num_workers=1)
