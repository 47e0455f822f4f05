_base_ = ['base.py', '../_base_/calibration/simcal_400steps.py']
