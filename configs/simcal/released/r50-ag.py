# The released detector whose boxes and masks are shared by all classes, with a calibrated head: docs/released_models.md.
_base_ = 'r50.py'

model = dict(
    roi_head=dict(bbox_head=dict(reg_class_agnostic=True), mask_head=dict(class_agnostic=True)))
