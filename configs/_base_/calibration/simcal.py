# SimCal's own setting (ECCV 2020): 12,000 steps of 16 classes, one image each, on an otherwise frozen detector.
calibration = dict(
    calibrator=dict(type='SimCal', head='3fc_ft', threshold=100),
    sampler=dict(type='BiLevelSampler', classes_per_step=16, images_per_class=1, tau=0.0, cap=100),
    selector=dict(type='DrawnClassSelector'),
    max_steps=12000,
    optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0, weight_decay=0)),
    param_scheduler=[dict(type='MultiStepLR', by_epoch=False, milestones=[7000, 10000], gamma=0.1)],
    num_workers=2)
