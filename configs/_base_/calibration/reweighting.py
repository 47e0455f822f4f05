# Re-weighting by inverse frequency, of the last layer alone, as published next to BAGS (CVPR 2020).
_base_ = 'last_layer.py'

calibration = dict(calibrator=dict(type='ReWeighting', weights='inverse'))
