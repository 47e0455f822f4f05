_base_ = ['../lvis/mask-rcnn_r50_fpn_1x_lvis-v0.5.py', '../_base_/calibration/simcal.py']
