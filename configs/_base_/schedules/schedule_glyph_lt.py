# Training from scratch in a few epochs, in iterations: warm-up, then a cosine to zero. Without ImageNet weights to start
# from, AdamW takes the place of the paper's SGD.
max_iters = 2200
warmup = 100

train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.001, weight_decay=0.05),
    clip_grad=dict(max_norm=35, norm_type=2))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=warmup),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=False, begin=warmup, end=max_iters)
]
