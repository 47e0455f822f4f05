# GlyphLT with 400 classes, as `make glyph-lt400` generates it.
_base_ = 'glyph_lt_instance.py'

data_root = 'data/glyph_lt400/'
generation = dict(catalogue='distinct', classes=400, train_images=9400, val_images=1200)

train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))

val_evaluator = dict(ann_file=data_root + 'annotations/glyph_lt_val.json')
test_evaluator = dict(ann_file=data_root + 'annotations/glyph_lt_val.json')
