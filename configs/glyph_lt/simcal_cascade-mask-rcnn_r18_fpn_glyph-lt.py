_base_ = ['cascade-mask-rcnn_r18_fpn_glyph-lt.py', '../_base_/calibration/simcal_800steps.py']
