_base_ = '../glyph_lt/ncm.py'

calibration = dict(max_steps=588, choices=dict(temperature=[0.02, 0.05]))
