# Tau-normalised weights (ICLR 2020), of objects alone and selected, as published next to BAGS (CVPR 2020).
calibration = dict(calibrator=dict(type='TauNorm', tau=1.0))
