# For checkpoints of tools/model_converters/detectron2_detector.py: Mask R-CNN R50-FPN.
_base_ = 'mask-rcnn_r50_fpn_lvis-v0.5.py'

model = dict(roi_head=dict(bbox_head=dict(num_classes=1203), mask_head=dict(num_classes=1203)))

train_dataloader = dict(
    dataset=dict(type='LVISV1Dataset', ann_file='lvis_v1_train.json.zip', data_prefix=dict(img='images/')))
val_dataloader = dict(
    dataset=dict(type='LVISV1Dataset', ann_file='lvis_v1_val.json.zip', data_prefix=dict(img='images/')))
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=_base_.data_root + 'lvis_v1_val.json.zip')
test_evaluator = val_evaluator
