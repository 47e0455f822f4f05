_base_ = ['../lvis/mask-rcnn_r50-ag_fpn_1x_lvis-v1.py', '../_base_/calibration/simcal.py']
