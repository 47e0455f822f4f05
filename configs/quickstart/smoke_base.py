# `make quickstart-smoke`: the quickstart in a few iterations, on a data set of its own.
_base_ = 'base.py'

data_root = 'data/glyph_lt_smoke/'
generation = dict(train_images=48, val_images=24)

train_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
test_evaluator = dict(ann_file=data_root + 'annotations/glyph_lt_val.json')

train_cfg = dict(max_iters=6)
default_hooks = dict(checkpoint=dict(interval=3))
