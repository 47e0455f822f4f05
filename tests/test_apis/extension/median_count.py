custom_imports = dict(imports=['median_calibrator'])
calibration = dict(calibrator=dict(type='MedianCount', strength=0.5))
