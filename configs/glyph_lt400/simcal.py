_base_ = ['mask-rcnn_r18-ag_fpn_glyph-lt400.py', '../_base_/calibration/simcal_800steps.py']
