_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn_simcal-base.py', '../_base_/datasets/coco_lt_instance.py',
    '../_base_/schedules/schedule_1x.py', '../_base_/default_runtime.py'
]
