"""Config texts with mmdetection 3's blocks and keys, and a small data set that they fit."""
import json

import cv2
import numpy as np
from pycocotools import mask as coco_mask

SIZES = [(60, 40), (40, 60), (64, 48), (50, 50)]

RUNTIME = """
default_scope = 'mmdet'
default_hooks = dict(
    timer=dict(type='IterTimerHook'), logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'), checkpoint=dict(type='CheckpointHook', interval=1),
    sampler_seed=dict(type='DistSamplerSeedHook'), visualization=dict(type='DetVisualizationHook'))
env_cfg = dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
               dist_cfg=dict(backend='nccl'))
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='DetLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
log_level = 'INFO'
load_from = None
resume = False
custom_imports = dict(imports=['json'], allow_failed_imports=False)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1)]
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001))
auto_scale_lr = dict(enable=False, base_batch_size=16)
"""

_DATA = """
backend_args = None
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=backend_args{decoder}),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True{annotations}),
    {augmentations}
    dict(type='PackDetInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=backend_args{decoder}),
    dict(type='Resize', scale=(90, 60), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True{annotations}),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
images = dict(type='{dataset}', data_root=data_root, ann_file='annotations/{dataset}.json',
              data_prefix=dict({prefix}), backend_args=backend_args)
train_images = dict(filter_cfg=dict(filter_empty_gt=True, min_size=32), pipeline=train_pipeline, **images)
train_dataloader = dict(
    batch_size=2, num_workers=2, persistent_workers=True, sampler=dict(type='{sampler}', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'), dataset={wrapped})
val_dataloader = dict(
    batch_size=1, num_workers=2, persistent_workers=True, drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(test_mode=True, pipeline=test_pipeline, **images))
test_dataloader = val_dataloader
val_evaluator = dict(type='{metric}', ann_file=data_root + 'annotations/{dataset}.json', metric=['bbox', 'segm'],
                     format_only=False, backend_args=backend_args)
test_evaluator = val_evaluator
"""

_COCO = dict(
    dataset='CocoDataset',
    metric='CocoMetric',
    prefix="img='train2017/'",
    sampler='DefaultSampler',
    wrapped='train_images',
    decoder='',
    annotations='',
)
_LVIS = _COCO | dict(
    metric='LVISMetric',
    augmentations="""dict(type='RandomChoiceResize', scales=[(90, 50), (90, 60), (90, 70)], keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),""",
    wrapped="dict(type='ClassBalancedDataset', oversample_thr=1.0, dataset=train_images)",
)

CONFIGS = {
    'lvis_v0.5': _LVIS | dict(dataset='LVISV05Dataset'),
    'lvis_v1': _LVIS | dict(dataset='LVISV1Dataset', prefix="img=''"),
    'coco_semantic': _COCO | dict(
        prefix="img='train2017/', seg='stuffthingmaps/train2017/'",
        annotations=', with_seg=True',
        augmentations="""dict(type='Resize', scale=(90, 60), keep_ratio=True),
    dict(type='RandomFlip', prob=[0.3, 0.3, 0.3], direction=['horizontal', 'vertical', 'diagonal']),""",
    ),
    'coco_ms_poly_3x': _COCO | dict(
        annotations=', poly2mask=False',
        augmentations="""dict(type='RandomResize', scale=[(90, 50), (90, 80)], keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),""",
        wrapped="dict(type='RepeatDataset', times=3, dataset=train_images)",
    ),
    'coco_caffe_pillow': _COCO | dict(
        decoder=", imdecode_backend='pillow'",
        annotations=', poly2mask=False',
        augmentations="""dict(type='RandomChoiceResize', scales=[(90, 50), (90, 60)], keep_ratio=True,
         backend='pillow'),
    dict(type='RandomFlip', prob=0.5),""",
        sampler='InfiniteSampler',
    ),
    'coco_large_scale_jitter': _COCO | dict(
        prefix="img='train2017/', seg='stuffthingmaps/train2017/'",
        annotations=', with_seg=True',
        augmentations="""dict(type='RandomResize', scale=(64, 64), ratio_range=(0.8, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_type='absolute_range', crop_size=(40, 48), recompute_bbox=True,
         allow_negative_crop=True),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-2, 1e-2)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='Pad', size=(64, 56), pad_val=dict(img=(114, 114, 114))),""",
        wrapped="dict(type='ConcatDataset', datasets=[train_images, train_images])",
    ),
}  # fmt: skip


def config_text(name, root):
    """The whole text of one of `CONFIGS`, for data below `root`."""
    return f'data_root = {str(root) + "/"!r}\n' + _DATA.format(**CONFIGS[name]) + RUNTIME


def write_data(root):
    """Photographs of noise with concave and two-part polygons, a crowd, and semantic maps; in COCO and LVIS format."""
    rng = np.random.default_rng(0)
    for folder in ('train2017', 'stuffthingmaps/train2017', 'annotations'):
        (root / folder).mkdir(parents=True)
    images, annotations = [], []
    for number, (width, height) in enumerate(SIZES, 1):
        name = f'{number:012}'
        blocks = rng.integers(0, 256, (-(-height // 4), -(-width // 4), 3), dtype=np.uint8)
        picture = blocks.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]
        cv2.imwrite(str(root / f'train2017/{name}.png'), picture)
        labels = rng.integers(0, 183, (height, width), dtype=np.uint8)
        cv2.imwrite(str(root / f'stuffthingmaps/train2017/{name}.png'), labels)
        images.append(dict(id=number, width=width, height=height, file_name=f'{name}.png'))
        concave = np.array([[4, 4], [30.5, 4], [30.5, 30], [17, 12.25], [4, 30]])
        parts = [np.array([[20, 20], [34, 22], [26, 33]]) + shift for shift in (0, [-14, 3])]
        crowd = np.zeros((height, width), np.uint8)
        crowd[height // 2 :, width // 2 :: 3] = 1
        encoded = coco_mask.encode(np.asfortranarray(crowd))
        annotations += [
            _annotation(number, 1 + number % 2, [concave]),
            _annotation(number, 3, parts),
            dict(
                image_id=number,
                category_id=1,
                iscrowd=1,
                segmentation=dict(size=[height, width], counts=encoded['counts'].decode()),
                bbox=[width // 2, height // 2, width - width // 2, height - height // 2],
                area=int(crowd.sum()),
            ),
        ]
    for number, annotation in enumerate(annotations, 1):
        annotation['id'] = number
    categories = [dict(id=i, name=name, frequency='f') for i, name in enumerate(['cup', 'cat', 'car'], 1)]
    for dataset in ('CocoDataset', 'LVISV05Dataset', 'LVISV1Dataset'):
        listed = [dict(image) for image in images]
        if dataset != 'CocoDataset':
            for image in listed:
                image.update(neg_category_ids=[], not_exhaustive_category_ids=[])
        if dataset == 'LVISV1Dataset':
            for image in listed:
                image['coco_url'] = f'http://images.cocodataset.org/train2017/{image.pop("file_name")}'
        content = dict(images=listed, annotations=annotations, categories=categories)
        (root / f'annotations/{dataset}.json').write_text(json.dumps(content))


def _annotation(image_id, category_id, polygons):
    points = np.concatenate(polygons)
    corner, size = points.min(axis=0), np.ptp(points, axis=0)
    segmentation = [polygon.ravel().tolist() for polygon in polygons]
    return dict(
        image_id=image_id,
        category_id=category_id,
        iscrowd=0,
        segmentation=segmentation,
        bbox=[*corner.tolist(), *size.tolist()],
        area=float(coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(segmentation, 80, 80)))),
    )
