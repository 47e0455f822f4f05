# COCO-LT trains on a long-tail subset of train2017 and is evaluated on COCO's val2017; loaded as LVIS is.
_base_ = 'lvis_v0.5_instance.py'

data_root = 'data/coco/'

train_dataloader = dict(
    dataset=dict(
        type='CocoLTDataset',
        data_root=data_root,
        ann_file='annotations/coco_lt_train.json',
        data_prefix=dict(img='train2017/')))
val_dataloader = dict(
    dataset=dict(
        type='CocoLTDataset',
        data_root=data_root,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/')))
test_dataloader = val_dataloader

val_evaluator = dict(
    type='CocoMetric', ann_file=data_root + 'annotations/instances_val2017.json', bins=(1, 20, 400, 8000))
test_evaluator = val_evaluator
