# FRACAL (CVPR 2025): counts of training images, and where the boxes of each class are.
calibration = dict(calibrator=dict(type='FRACAL', dimension_power=2.0))
