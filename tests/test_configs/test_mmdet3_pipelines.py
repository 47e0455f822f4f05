"""Data blocks as mmdetection 3's configs write them: built, loaded, and held against brute force."""
import json
from pathlib import Path
from types import SimpleNamespace

import mmcv
import numpy as np
import pytest
from mmengine.dataset import ClassBalancedDataset as MMEngineClassBalancedDataset
from pycocotools import mask as coco_mask

from mmdet import apis
from mmdet.datasets import ClassBalancedDataset
from mmdet.engine import Runner, config_errors, load_config
from mmdet.errors import ConfigError, ImageError
from mmdet.registry import DATASETS, METRICS, VISUALIZERS

from .mmdet3_configs import CONFIGS, config_text, write_data

MODEL = Path(__file__).resolve().parents[2] / 'configs/_base_/models/mask-rcnn_r18-half_fpn.py'
# The steps along rows and columns that undo a flip.
FLIPS = {None: (1, 1), 'horizontal': (1, -1), 'vertical': (-1, 1), 'diagonal': (-1, -1)}


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')
    write_data(folder)
    return folder


@pytest.fixture
def load(root, tmp_path):
    def load(name, **options):
        path = tmp_path / f'{name}.py'
        path.write_text(config_text(name, root))
        return load_config(path, {key.replace('__', '.'): value for key, value in options.items()})

    return load


def annotated(root, image_id):
    content = json.loads((root / 'annotations/CocoDataset.json').read_text())
    return [item for item in content['annotations'] if item['image_id'] == image_id]


def nearest(picture, height, width):
    """OpenCV's nearest pixel, written out."""
    rows = np.floor(np.arange(height) * (1 / (height / picture.shape[0]))).astype(int)
    columns = np.floor(np.arange(width) * (1 / (width / picture.shape[1]))).astype(int)
    return picture[rows[:, None], columns]


def expected_mask(annotation, ori_shape, shape, poly2mask, flip):
    """The bitmap of an annotation on the resized and flipped image."""
    height, width = shape
    rows, columns = FLIPS[flip]
    segmentation = annotation['segmentation']
    if isinstance(segmentation, dict) or poly2mask:
        if isinstance(segmentation, list):
            segmentation = coco_mask.merge(coco_mask.frPyObjects(segmentation, *ori_shape))
        return nearest(coco_mask.decode(segmentation), height, width)[::rows, ::columns]
    scale = np.array([width / ori_shape[1], height / ori_shape[0]])
    mirrored = np.array([columns < 0, rows < 0])
    moved = []
    for part in segmentation:
        points = np.array(part).reshape(-1, 2) * scale
        moved.append(np.where(mirrored, [width, height] - points, points).ravel())
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(moved, height, width)))


def expected_box(annotation, ori_shape, shape, flip):
    height, width = shape
    x, y, w, h = annotation['bbox']
    x1, x2 = x * width / ori_shape[1], (x + w) * width / ori_shape[1]
    y1, y2 = y * height / ori_shape[0], (y + h) * height / ori_shape[0]
    rows, columns = FLIPS[flip]
    x1, x2 = (x1, x2) if columns > 0 else (width - x2, width - x1)
    y1, y2 = (y1, y2) if rows > 0 else (height - y2, height - y1)
    return [x1, y1, x2, y2]


@pytest.mark.parametrize('name', [name for name in CONFIGS if 'jitter' not in name])
def test_samples_are_what_brute_force_makes_of_the_files(load, root, name):
    config = load(name)
    dataset = DATASETS.build(config.train_dataloader.dataset)
    backend = 'pillow' if 'pillow' in name else 'cv2'
    flips, shapes = set(), set()
    for index in range(len(dataset)):
        packed = dataset[index]
        sample = packed['data_samples']
        shape, flip = sample.img_shape, sample.flip_direction
        assert sample.flip == (flip is not None)
        flips.add(flip)
        shapes.add(shape)
        rows, columns = FLIPS[flip]
        picture = mmcv.imresize(mmcv.imread(sample.img_path), shape[::-1], backend=backend)
        assert np.array_equal(packed['inputs'].permute(1, 2, 0).numpy(), picture[::rows, ::columns])
        assert sample.scale_factor == (shape[1] / sample.ori_shape[1], shape[0] / sample.ori_shape[0])

        annotations = annotated(root, sample.img_id)
        for instances, crowds in ((sample.gt_instances, 0), (sample.ignored_instances, 1)):
            wanted = [annotation for annotation in annotations if annotation['iscrowd'] == crowds]
            assert instances.labels.tolist() == [annotation['category_id'] - 1 for annotation in wanted]
            boxes = [expected_box(annotation, sample.ori_shape, shape, flip) for annotation in wanted]
            assert instances.bboxes.numpy() == pytest.approx(np.array(boxes), abs=1e-4)
            poly2mask = 'poly2mask=False' not in CONFIGS[name]['annotations']
            for bitmap, annotation in zip(instances.masks.to_bitmaps(), wanted, strict=True):
                assert np.array_equal(bitmap, expected_mask(annotation, sample.ori_shape, shape, poly2mask, flip))
        assert ('gt_sem_seg' in sample) == ('with_seg' in CONFIGS[name]['annotations'])
        if 'gt_sem_seg' in sample:
            labels = mmcv.imread(root / f'stuffthingmaps/train2017/{sample.img_id:012}.png', flag='unchanged')
            assert np.array_equal(sample.gt_sem_seg.sem_seg[0].numpy(), nearest(labels, *shape)[::rows, ::columns])
    assert None in flips and len(flips) > 1 and len(shapes) > 2


def test_a_jittered_crop_is_a_padded_part_of_the_resized_image(load, root):
    dataset = DATASETS.build(load('coco_large_scale_jitter').train_dataloader.dataset)
    assert len(dataset) == 8
    flipped = set()
    for index in range(len(dataset)):
        packed = dataset[index]
        sample = packed['data_samples']
        assert packed['inputs'].shape[1:] == sample.img_shape == (56, 64)
        width_factor, height_factor = sample.scale_factor
        shape = round(sample.ori_shape[0] * height_factor), round(sample.ori_shape[1] * width_factor)
        picture = mmcv.imresize(mmcv.imread(sample.img_path), shape[::-1])
        column_step = -1 if sample.flip else 1
        flipped.add(sample.flip)

        image = packed['inputs'].permute(1, 2, 0).numpy()
        semantic = sample.gt_sem_seg.sem_seg[0].numpy()
        in_crop = semantic != 255
        height, width = in_crop.any(axis=1).sum(), in_crop.any(axis=0).sum()
        assert in_crop[:height, :width].all() and in_crop.sum() == height * width
        assert min(40, shape[0]) <= height <= 48 and min(40, shape[1]) <= width <= 48
        assert (image[~in_crop] == 114).all()
        crop = image[:height, :width][:, ::column_step]
        places = [
            (top, left)
            for top in range(shape[0] - height + 1)
            for left in range(shape[1] - width + 1)
            if np.array_equal(picture[top : top + height, left : left + width], crop)
        ]
        assert len(places) == 1
        part = tuple(slice(first, first + length) for first, length in zip(places[0], (height, width), strict=True))
        labels = mmcv.imread(root / f'stuffthingmaps/train2017/{sample.img_id:012}.png', flag='unchanged')
        assert np.array_equal(semantic[:height, :width], nearest(labels, *shape)[part][:, ::column_step])

        masks = []
        for crowds in (0, 1):
            for annotation in annotated(root, sample.img_id):
                mask = expected_mask(annotation, sample.ori_shape, shape, True, None)[part][:, ::column_step]
                if annotation['iscrowd'] == crowds and mask.any():
                    masks.append(np.pad(mask, [(0, 56 - height), (0, 64 - width)]))
        both = (sample.gt_instances, sample.ignored_instances)
        assert np.array_equal(np.concatenate([instances.masks.to_bitmaps() for instances in both]), masks)
        boxes = np.concatenate([instances.bboxes for instances in both])
        for box, mask in zip(boxes, masks, strict=True):
            rows, columns = np.nonzero(mask)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert flipped == {True, False}


@pytest.mark.parametrize('name', CONFIGS)
def test_loaders_metrics_and_visualizer_are_built(load, name, tmp_path):
    config = load(name, train_dataloader__num_workers=0, val_dataloader__num_workers=0)
    loader = Runner.build_dataloader(config.train_dataloader, seed=0)
    batch = next(iter(loader))
    assert len(batch['inputs']) == len(batch['data_samples']) == 2
    sizes = [sample.ori_shape for sample in batch['data_samples']]
    assert (sizes[0][0] > sizes[0][1]) == (sizes[1][0] > sizes[1][1])
    validation = Runner.build_dataloader(config.val_dataloader, seed=0)
    assert [batch['data_samples'][0].img_id for batch in validation] == [1, 2, 3, 4]
    metric = METRICS.build(config.val_evaluator)
    metric.dataset_meta = validation.dataset.metainfo
    assert metric.iou_types == ['bbox', 'segm']
    visualizer = VISUALIZERS.build(config.visualizer | dict(name=f'visualizer {name}', save_dir=str(tmp_path)))
    assert list(visualizer._vis_backends) == ['LocalVisBackend']


@pytest.mark.parametrize('threshold', [0.3, 0.7, 1.0])
def test_images_are_repeated_as_mmengine_repeats_them(load, threshold):
    inner = DATASETS.build(load('lvis_v1').train_images)
    factors = MMEngineClassBalancedDataset._get_repeat_factors(SimpleNamespace(dataset=inner), inner, threshold)
    expected = [index for index, factor in enumerate(factors) for _ in range(int(np.ceil(factor)))]
    assert ClassBalancedDataset(inner, threshold).inner.tolist() == expected


@pytest.mark.slow
def test_a_detector_is_trained_and_tested_on_them(load, tmp_path):
    model = load_config(MODEL).model
    config = load('lvis_v1', train_dataloader__num_workers=0, val_dataloader__num_workers=0)
    for head in (model.roi_head.bbox_head, model.roi_head.mask_head):
        head.num_classes = 3
    config.update(model=model, work_dir=str(tmp_path / 'run'))
    config.test_dataloader = config.val_dataloader
    config.model.test_cfg.rcnn.max_per_img = 5
    runner = apis.train(config)
    assert runner.epoch == 1 and runner.optim_wrapper.get_lr()['lr'][0] < 0.002
    figures = apis.test(config, tmp_path / 'run/epoch_1.pth')
    assert {'lvis/bbox_AP', 'lvis/segm_AP'} <= figures['base'].keys()


def test_a_semantic_map_of_another_size_is_named(load, root, tmp_path):
    config = load('coco_semantic')
    small = tmp_path / 'maps'
    small.mkdir()
    for path in (root / 'stuffthingmaps/train2017').iterdir():
        mmcv.imwrite(np.zeros((20, 30), np.uint8), str(small / path.name))
    dataset = DATASETS.build(config.train_images | dict(data_prefix=dict(img='train2017/', seg=str(small))))
    with pytest.raises(ImageError, match=r'000000000001\.png: .*here 60x40; this one is 30x20$'):
        dataset[0]


def test_mixing_images_is_refused_by_name(load):
    config = load('coco_semantic')
    config.train_dataloader.dataset = dict(
        type='MultiImageMixDataset', dataset=config.train_images, pipeline=[dict(type='Mosaic')]
    )
    message = 'train_dataloader.dataset: MultiImageMixDataset mixes several images into one, which is not supported'
    with pytest.raises(ConfigError, match=message) as error, config_errors(config):
        Runner.build_dataloader(config.train_dataloader)
    assert '\n' not in str(error.value)
