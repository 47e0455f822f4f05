# `make quickstart`: the detector of configs/glyph_lt on a shorter schedule.
_base_ = '../glyph_lt/mask-rcnn_r18-ag_fpn_glyph-lt.py'

max_iters = 1200
warmup = 100

train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=warmup),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=False, begin=warmup, end=max_iters)
]

# Base and calibrated detector are tested together at the end.
val_dataloader = None
val_cfg = None
val_evaluator = None

compare = dict(
    calibrators=[
        'simcal_400steps', 'glyph_lt/fine_tuned', 'glyph_lt/bags', 'glyph_lt/crt', 'glyph_lt/lws', 'glyph_lt/disalign',
        'glyph_lt/acsl', 'glyph_lt/reweighting', 'glyph_lt/reweighting_effective_number', 'glyph_lt/tail_fine_tune',
        'glyph_lt/logn', 'glyph_lt/ncm', 'norcal', 'logit_adjustment', 'fracal', 'tau_norm', 'temperature',
        'glyph_lt/norcal_on_simcal', 'glyph_lt/norcal_on_bags', 'glyph_lt/dual_norcal', 'glyph_lt/mean_simcal_norcal'
    ])
