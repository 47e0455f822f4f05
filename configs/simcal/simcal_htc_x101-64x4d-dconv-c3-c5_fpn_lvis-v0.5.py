_base_ = ['../htc/htc_x101-64x4d-dconv-c3-c5_fpn_ms-400-1400-16xb1-20e_lvis-v0.5.py', '../_base_/calibration/simcal.py']
