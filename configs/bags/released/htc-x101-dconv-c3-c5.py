# The released Hybrid Task Cascade with deformable convolutions, whose stages' last layers are those of balanced group
# softmax: docs/released_models.md.
_base_ = '../../simcal/released/htc-x101.py'

model = dict(test_cfg=dict(rcnn=dict(score_thr=0.001)))
