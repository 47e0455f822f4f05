# The released Hybrid Task Cascade without deformable convolutions: docs/released_models.md.
_base_ = 'htc-x101-dconv-c3-c5.py'

model = dict(backbone=dict(dcn=None, stage_with_dcn=(False, False, False, False)))
