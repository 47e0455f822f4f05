# The released Mask R-CNN whose last layer is that of balanced group softmax: docs/released_models.md.
_base_ = '../../simcal/released/r50.py'

model = dict(test_cfg=dict(rcnn=dict(score_thr=0.001)))
