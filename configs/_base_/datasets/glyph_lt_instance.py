# GlyphLT, as `make quickstart` and tools/dataset_converters/glyph_lt.py generate it: images of 128x128 pixels, used as they are.
data_root = 'data/glyph_lt/'
generation = dict(seed=0, classes=60, train_images=1400, val_images=360, image_size=128)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='PackDetInputs')
]

train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='GlyphLTDataset',
        data_root=data_root,
        ann_file='annotations/glyph_lt_train.json',
        data_prefix=dict(img='images/'),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='GlyphLTDataset',
        data_root=data_root,
        ann_file='annotations/glyph_lt_val.json',
        data_prefix=dict(img='images/'),
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(type='LVISMetric', ann_file=data_root + 'annotations/glyph_lt_val.json', metric=['bbox', 'segm'])
test_evaluator = val_evaluator
