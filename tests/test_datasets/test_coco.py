"""Data sets: labels, counts, filters, files, draws."""
import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from mmdet.datasets import CocoDataset, Draw
from mmdet.errors import AnnotationError, ConfigError, ImageError
from mmdet.registry import DATASETS

from .conftest import rectangle

PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]


def build(tiny, **more):
    """The tiny data set as a config would build it."""
    tiny.write()
    cfg = dict(
        type='CocoDataset',
        ann_file='tiny.json',
        data_root=str(tiny.root),
        data_prefix=dict(img='images/'),
        pipeline=PIPELINE,
    )
    return DATASETS.build(cfg | more)


def test_labels_follow_category_ids(tiny):
    dataset = build(tiny)
    assert dataset.metainfo['classes'] == ('cat', 'car', 'cup') and dataset.metainfo['category_ids'] == (3, 5, 7)
    info = dataset.get_data_info(0)
    assert (info['img_id'], info['height'], info['width']) == (11, 40, 60)
    assert info['img_path'] == f'{tiny.root}/images/a.png'
    assert [instance['bbox_label'] for instance in info['instances']] == [0, 2] == dataset.get_cat_ids(0)
    assert info['instances'][0]['bbox'] == [5, 6, 25.5, 16.25]


def test_a_sample(tiny):
    sample = build(tiny)[0]
    assert sample['inputs'].dtype == torch.uint8 and sample['inputs'].shape == (3, 40, 60)
    data = sample['data_samples']
    assert data.gt_instances.labels.tolist() == [0, 2] and data.gt_instances.bboxes.dtype == torch.float32
    assert len(data.gt_instances.masks) == 2 and len(data.ignored_instances.bboxes) == 0
    assert data.ori_shape == (40, 60) and data.img_id == 11 and data.draw_key == (0, 0) and 'drawn_class' not in data


@pytest.mark.parametrize('key', ['iscrowd', 'ignore'])
def test_crowds_and_ignored_annotations_are_no_positives(tiny, key):
    del tiny.annotations[3]['iscrowd']
    tiny.annotations[3][key] = 1
    data = build(tiny)[1]['data_samples']
    assert data.gt_instances.labels.tolist() == [2] and data.ignored_instances.labels.tolist() == [0]
    assert len(data.gt_instances.masks) == len(data.ignored_instances.masks) == 1


def test_an_instance_without_a_mask_is_ignored_where_masks_are_loaded(tiny):
    tiny.annotations[0]['segmentation'] = []
    assert build(tiny)[0]['data_samples'].ignored_instances.labels.tolist() == [0]
    boxes_only = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackDetInputs')]
    assert build(tiny, pipeline=boxes_only)[0]['data_samples'].gt_instances.labels.tolist() == [0, 2]


def test_a_file_without_any_mask(tiny):
    for annotation in tiny.annotations:
        del annotation['segmentation']
    with pytest.raises(AnnotationError, match='boxes but no masks'):
        build(tiny)
    assert len(build(tiny, pipeline=[])) == 3


def test_an_image_without_annotations(tiny):
    data = build(tiny)[2]['data_samples']
    assert data.gt_instances.bboxes.shape == (0, 4) and data.gt_instances.labels.shape == (0,)
    assert len(data.gt_instances.masks) == 0
    assert len(build(tiny, filter_cfg=dict(filter_empty_gt=True))) == 2
    assert len(build(tiny, filter_cfg=dict(filter_empty_gt=True), test_mode=True)) == 3


def test_filters_and_indices(tiny):
    assert build(tiny, indices=2).images.tolist() == [0, 1]
    assert build(tiny, indices=[2, 0]).images.tolist() == [2, 0]
    tiny.content['images'][1]['width'] = 45
    assert build(tiny, filter_cfg=dict(min_size=41)).images.tolist() == [1]
    with pytest.raises(AnnotationError, match='no image is left of 3'):
        build(tiny, filter_cfg=dict(min_size=100))
    with pytest.raises(ConfigError, match='min_sise'):
        build(tiny, filter_cfg=dict(min_sise=32))


def test_a_selection_of_classes(tiny):
    dataset = build(tiny, metainfo=dict(classes=('cup', 'car'), palette=[(1, 2, 3)]))
    assert dataset.metainfo == dict(classes=('car', 'cup'), category_ids=(5, 7), palette=[(1, 2, 3)])
    assert dataset.get_cat_ids(0) == [1] and dataset.class_frequency().instance_count.tolist() == [0, 2]
    with pytest.raises(AnnotationError, match="no category 'cupp'.*did you mean 'cup'"):
        build(tiny, metainfo=dict(classes=('cupp',)))


def test_counts_are_as_the_file_lists_them(tiny):
    """Crowds, boxes too thin to use and images filtered out included."""
    tiny.annotations.append(dict(id=5, image_id=9, category_id=3, **rectangle(1, 1, 0.5, 9)))
    dataset = build(tiny, filter_cfg=dict(filter_empty_gt=True))
    frequency = dataset.class_frequency()
    assert frequency.names == ('cat', 'car', 'cup')
    assert frequency.instance_count.tolist() == [3, 0, 2] and frequency.image_count.tolist() == [3, 0, 2]
    assert [images.tolist() for images in dataset.images_of_class()] == [[0, 1], [], [0, 1]]


def test_images_to_learn_a_class_have_an_instance_that_becomes_a_positive(tiny, warnings_logged):
    """Of a crowd, an ignored instance, and where masks are loaded of one without a mask, nothing is learnt."""
    tiny.annotations.append(dict(id=5, image_id=9, category_id=5, ignore=1, **rectangle(1, 1, 9, 9)))
    tiny.annotations[1]['segmentation'] = []
    dataset = build(tiny)
    assert [images.tolist() for images in dataset.images_of_class()] == [[0, 1], [], [0, 1]]
    assert [images.tolist() for images in dataset.images_to_learn_class()] == [[0], [], [0]]
    assert '1 of 3 classes have no usable training instance (car)' in warnings_logged[-1]
    for label, images in enumerate(dataset.images_to_learn_class()):
        positives = [label in dataset[index]['data_samples'].gt_instances.labels for index in range(len(dataset))]
        assert images.tolist() == np.flatnonzero(positives).tolist()
    boxes_only = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackDetInputs')]
    assert [images.tolist() for images in build(tiny, pipeline=boxes_only).images_to_learn_class()] == [[0], [], [0, 1]]


@pytest.mark.parametrize(('mark', 'counted'), [('iscrowd', [2, 0]), ('ignore', [2])])
def test_class_balanced_sampling_counts_crowds_but_no_ignored_annotations(tiny, mark, counted):
    """As mmdetection 3 does."""
    del tiny.annotations[3]['iscrowd']
    tiny.annotations[3][mark] = 1
    dataset = build(tiny)
    assert dataset.get_cat_ids(1) == counted
    assert dataset.images_of_class()[0].tolist() == [0] + [1] * (0 in counted)


def test_a_class_without_a_training_image_is_a_warning(tiny, warnings_logged):
    build(tiny, test_mode=True)
    assert not warnings_logged
    build(tiny)
    assert len(warnings_logged) == 1 and '1 of 3 classes have no usable training instance (car)' in warnings_logged[0]


def test_a_bad_record_among_many_is_a_warning(tiny, warnings_logged):
    tiny.many()
    tiny.annotations.append(dict(id=77, image_id=11, category_id=99, **rectangle(1, 1, 9, 9)))
    dataset = build(tiny)
    assert any('tiny.json: 1 of 205 annotations cannot be used' in message for message in warnings_logged)
    assert 'inputs' in dataset[0]


def test_a_missing_image_is_named(tiny):
    (tiny.root / 'images/a.png').unlink()
    with pytest.raises(ImageError, match=r'images/a\.png: no such image file'):
        build(tiny)[0]


@pytest.mark.parametrize('index, name', [(0, 'a.png'), (1, 'b.jpg')])
@pytest.mark.parametrize('share', [0.0, 0.5, 0.95])
def test_a_truncated_image_is_named(tiny, index, name, share):
    path = tiny.root / 'images' / name
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ImageError, match=name) as error:
        build(tiny)[index]
    assert '\n' not in str(error.value)


def test_what_follows_or_precedes_the_pixels_of_a_jpeg_does_not_matter(tiny):
    path = tiny.root / 'images/b.jpg'
    whole = path.read_bytes()
    pixels = build(tiny)[1]['inputs']
    thumbnail = b'\xff\xe1' + (len(whole) + 2).to_bytes(2, 'big') + whole
    for data in (whole + b'film \xff\xda\xff', whole + whole[: len(whole) // 2], whole[:2] + thumbnail + whole[2:]):
        path.write_bytes(data)
        assert torch.equal(build(tiny)[1]['inputs'], pixels)
    for data in (whole[:2] + thumbnail + whole[2:-9], whole[:2] + thumbnail):
        path.write_bytes(data)
        with pytest.raises(ImageError, match='b.jpg: the image file is cut short'):
            build(tiny)[1]


def test_an_image_of_another_size_than_annotated_is_named(tiny):
    tiny.content['images'][0]['width'] = 61
    with pytest.raises(ImageError, match=r'images/a\.png: the image is 60x40, but was annotated at 61x40; fetch'):
        build(tiny)[0]
    assert build(tiny)[1]['inputs'].shape == (3, 60, 40)


def test_an_image_is_turned_as_its_exif_orientation_says(tiny):
    photo = Image.open(tiny.root / 'images/b.jpg')
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.transpose(Image.Transpose.ROTATE_90).save(tiny.root / 'images/b.jpg', exif=exif)
    assert build(tiny)[1]['data_samples'].ori_shape == (60, 40)
    ignoring = [dict(type='LoadImageFromFile', color_type='color_ignore_orientation'), dict(type='PackDetInputs')]
    with pytest.raises(ImageError, match='the image is 60x40, but was annotated at 40x60'):
        build(tiny, pipeline=ignoring)[1]


def test_a_file_that_is_no_image(tiny):
    (tiny.root / 'images/a.png').write_text('<html>404</html>')
    with pytest.raises(ImageError, match='a.png'):
        build(tiny)[0]


def test_an_image_error_in_a_worker_is_still_one(tiny):
    (tiny.root / 'images/a.png').unlink()
    loader = torch.utils.data.DataLoader(build(tiny), num_workers=1, collate_fn=list)
    with pytest.raises(ImageError, match='no such image file'):
        next(iter(loader))


def test_a_draw_is_a_function_of_its_key(tiny):
    dataset = build(tiny)
    draws = [Draw(0, seed=5, number=n, class_label=2) for n in range(40)]
    flips = [dataset[draw]['data_samples'].flip for draw in draws]
    assert flips == [dataset[draw]['data_samples'].flip for draw in draws]
    assert 10 < sum(flips) < 30
    data = dataset[draws[3]]['data_samples']
    assert data.drawn_class == 2 and data.draw_key == (5, 3)


def test_unknown_constructor_keys_are_refused(tiny):
    with pytest.raises(TypeError, match='test_mod'):
        build(tiny, test_mod=True)


def test_semantic_maps_lie_beside_the_images(tiny):
    (tiny.root / 'maps').mkdir()
    semantic = np.arange(40 * 60, dtype=np.uint8).reshape(40, 60)
    cv2.imwrite(str(tiny.root / 'maps/a.png'), semantic)
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_seg=True), dict(type='PackDetInputs')]
    dataset = build(tiny, data_prefix=dict(img='images/', seg='maps/'), pipeline=pipeline)
    assert np.array_equal(dataset[0]['data_samples'].gt_sem_seg.sem_seg[0].numpy(), semantic)


@pytest.mark.parametrize('name', ['CocoDataset', 'CocoLTDataset', 'LVISV1Dataset'])
def test_counts_on_real_photographs(shared_data, name):
    folder = shared_data / 'coco128'
    cfg = dict(type=name, ann_file='instances.json', data_root=str(folder), data_prefix=dict(img='images'))
    dataset = DATASETS.build(cfg | dict(pipeline=PIPELINE))
    coco = COCO(str(folder / 'instances.json'))
    assert dataset.metainfo['category_ids'] == tuple(sorted(coco.getCatIds()))
    frequency, images_of_class = dataset.class_frequency(), dataset.images_of_class()
    image_ids = dataset.index.image_ids[dataset.images]
    for label, category_id in enumerate(dataset.metainfo['category_ids']):
        assert frequency.instance_count[label] == len(coco.getAnnIds(catIds=[category_id]))
        expected = set(coco.getImgIds(catIds=[category_id]))
        assert frequency.image_count[label] == len(expected)
        assert set(image_ids[images_of_class[label]].tolist()) == expected
    assert frequency.instance_count.sum() == 939
    sample = dataset[5]
    height, width = sample['data_samples'].ori_shape
    assert sample['inputs'].shape == (3, height, width)
    for bitmap, annotation in zip(
        dataset.pipeline.transforms[1].transform(dataset.get_data_info(5))['gt_masks'].to_bitmaps(),
        coco.loadAnns(coco.getAnnIds(imgIds=[int(image_ids[5])])),
        strict=True,
    ):
        assert np.array_equal(bitmap, coco.annToMask(annotation))


def test_a_constructed_data_set_has_nothing_left_to_do(tiny):
    dataset = build(tiny)
    assert isinstance(dataset, CocoDataset) and dataset.full_init() is None
