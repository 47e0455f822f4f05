# An image's folder is in its `coco_url`: LVIS v1's validation set has images of train2017.
_base_ = 'lvis_v0.5_instance.py'

data_root = 'data/LVIS/'

train_dataloader = dict(
    dataset=dict(type='LVISV1Dataset', ann_file='lvis_v1_train.json.zip', data_prefix=dict(img='images/')))
val_dataloader = dict(
    dataset=dict(type='LVISV1Dataset', ann_file='lvis_v1_val.json.zip', data_prefix=dict(img='images/')))
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + 'lvis_v1_val.json.zip')
test_evaluator = val_evaluator
