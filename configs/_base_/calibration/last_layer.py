# What methods that train the last layer on the detector's ordinary RoIs have in common, as published next to BAGS (CVPR 2020):
# 12 epochs of LVIS v0.5, 3,546 steps of 16 images each, drops after epochs 8 and 11.
calibration = dict(
    sampler=dict(type='ImageSampler', images_per_step=16),
    selector=dict(type='AllRoIsSelector'),
    max_steps=42555,
    optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0001)),
    param_scheduler=[dict(type='MultiStepLR', by_epoch=False, milestones=[28370, 39009], gamma=0.1)],
    num_workers=2)
