_base_ = ['../coco_lt/mask-rcnn_r50_fpn_1x_coco-lt.py', '../_base_/calibration/simcal.py']

calibration = dict(calibrator=dict(threshold=400))
