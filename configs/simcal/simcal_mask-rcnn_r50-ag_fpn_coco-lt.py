_base_ = ['../coco_lt/mask-rcnn_r50-ag_fpn_1x_coco-lt.py', '../_base_/calibration/simcal.py']

calibration = dict(calibrator=dict(threshold=400))
