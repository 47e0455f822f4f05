# Re-weighting by effective numbers (CVPR 2019), of the last layer alone, as in BAGS's code.
_base_ = 'last_layer.py'

calibration = dict(calibrator=dict(type='ReWeighting', weights='effective_number', beta=0.999))
