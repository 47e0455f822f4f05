_base_ = [
    '../_base_/models/mask-rcnn_r18-half_fpn.py', '../_base_/datasets/glyph_lt_instance.py',
    '../_base_/schedules/schedule_glyph_lt.py', '../_base_/default_runtime.py'
]

# A step sees 8 images of 1,400; a checkpoint is written about every two minutes.
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=150, max_keep_ckpts=2), logger=dict(interval=25))
log_processor = dict(by_epoch=False)
