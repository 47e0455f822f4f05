# The detector of configs/glyph_lt on 400 classes, which compete for LVIS's 300 detections an image.
_base_ = [
    '../_base_/models/mask-rcnn_r18-half_fpn.py', '../_base_/datasets/glyph_lt400_instance.py',
    '../_base_/schedules/schedule_glyph_lt.py', '../_base_/default_runtime.py'
]

model = dict(roi_head=dict(bbox_head=dict(num_classes=400), mask_head=dict(num_classes=400)))

max_iters = 4500
warmup = 100

train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=warmup),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=False, begin=warmup, end=max_iters)
]

# A step sees 8 images of 9,400; a checkpoint is written about every two minutes.
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=300, max_keep_ckpts=2), logger=dict(interval=25))
log_processor = dict(by_epoch=False)

# Base and calibrated detector are tested together at the end.
val_dataloader = None
val_cfg = None
val_evaluator = None

compare = dict(
    calibrators=[
        'glyph_lt400/simcal', 'glyph_lt400/fine_tuned', 'glyph_lt400/bags', 'glyph_lt400/crt', 'glyph_lt400/lws',
        'glyph_lt400/disalign', 'glyph_lt400/acsl', 'glyph_lt400/reweighting',
        'glyph_lt400/reweighting_effective_number', 'glyph_lt400/tail_fine_tune', 'glyph_lt/logn', 'glyph_lt400/ncm',
        'glyph_lt400/norcal', 'glyph_lt400/logit_adjustment', 'glyph_lt400/fracal', 'glyph_lt400/tau_norm',
        'glyph_lt400/temperature', 'glyph_lt400/norcal_on_simcal', 'glyph_lt400/norcal_on_bags',
        'glyph_lt400/dual_norcal', 'glyph_lt400/mean_simcal_norcal'
    ])
