# The statistics forget where they began within 400 steps of this momentum.
_base_ = '../logn.py'

calibration = dict(calibrator=dict(momentum=0.02), max_steps=400, num_workers=1)
