# LogN (IJCV 2024): statistics of the logits over 25,000 steps; nothing is trained.
calibration = dict(
    calibrator=dict(type='LogN', momentum=5e-5),
    sampler=dict(type='ImageSampler', images_per_step=16),
    selector=dict(type='AllRoIsSelector'),
    max_steps=25000,
    num_workers=2)
