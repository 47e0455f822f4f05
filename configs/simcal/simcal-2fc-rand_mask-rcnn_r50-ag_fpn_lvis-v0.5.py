_base_ = 'simcal_mask-rcnn_r50-ag_fpn_lvis-v0.5.py'

calibration = dict(calibrator=dict(head='2fc_rand'))
