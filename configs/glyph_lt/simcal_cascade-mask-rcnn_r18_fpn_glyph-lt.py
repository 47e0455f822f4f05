_base_ = ['cascade-mask-rcnn_r18_fpn_glyph-lt.py', '../_base_/calibration/simcal.py']

calibration = dict(
    max_steps=800,
    param_scheduler=[dict(type='MultiStepLR', by_epoch=False, milestones=[480, 680], gamma=0.1)],
    num_workers=1)
