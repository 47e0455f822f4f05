# Nearest class mean, of the last layer's input: one pass over LVIS v0.5.
calibration = dict(
    calibrator=dict(type='NCM'),
    sampler=dict(type='ImageSampler', images_per_step=16),
    selector=dict(type='AllRoIsSelector'),
    max_steps=3546,
    num_workers=2)
