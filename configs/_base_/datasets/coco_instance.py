# COCO itself; the bins of training instances are COCO-LT's.
_base_ = 'coco_lt_instance.py'

train_dataloader = dict(dataset=dict(type='CocoDataset', ann_file='annotations/instances_train2017.json'))
val_dataloader = dict(dataset=dict(type='CocoDataset'))
test_dataloader = val_dataloader
