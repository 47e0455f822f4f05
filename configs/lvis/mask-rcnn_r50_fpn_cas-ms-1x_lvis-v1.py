# Class-aware sampling (ECCV 2016): a class first, then an image that has it.
_base_ = 'mask-rcnn_r50_fpn_random-ms-1x_lvis-v1.py'

train_dataloader = dict(sampler=dict(_delete_=True, type='ClassAwareSampler', num_sample_class=1))
