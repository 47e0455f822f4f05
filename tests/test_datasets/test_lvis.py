"""LVIS's file names and real LVIS annotations."""
import gzip
import json
import logging

import pytest
from lvis import LVIS

from mmdet.datasets import LVISV05Dataset, LVISV1Dataset
from mmdet.registry import DATASETS


@pytest.fixture
def tree(tiny):
    """LVIS v0.5's names for images that lie as COCO 2017's."""
    (tiny.root / 'images/val2017').mkdir()
    (tiny.root / 'images/train2017').mkdir()
    for image, name in zip(
        tiny.content['images'],
        ('COCO_val2014_000000000011.jpg', 'COCO_train2014_000000000004.jpg', 'COCO_val2014_000000000009.jpg'),
        strict=True,
    ):
        image['file_name'] = name
    return tiny


@pytest.mark.parametrize(
    'where',
    [
        'val2017/000000000011.jpg',
        'train2017/000000000011.jpg',
        'val2017/COCO_val2014_000000000011.jpg',
        'train2017/COCO_val2014_000000000011.jpg',
    ],
)
def test_v05_names_are_found_under_either_name_in_either_folder(tree, where):
    (tree.root / 'images' / where).write_bytes(b'')
    dataset = LVISV05Dataset(tree.write(), data_root=str(tree.root), data_prefix=dict(img='images/val2017/'))
    assert dataset.get_data_info(0)['img_path'] == f'{tree.root}/images/{where}'


def test_the_likeliest_name_is_reported_where_there_is_no_file(tree):
    dataset = LVISV05Dataset(tree.write(), data_prefix=dict(img='images/val2017/'))
    assert dataset.get_data_info(0)['img_path'] == 'images/val2017/000000000011.jpg'
    assert LVISV05Dataset(tree.write(), data_prefix=dict(img='pictures')).get_data_info(1)['img_path'] == (
        'pictures/000000000004.jpg'
    )


def test_v1_takes_folder_and_name_from_coco_url(tiny):
    for image in tiny.content['images']:
        del image['file_name']
        image['coco_url'] = f'http://images.cocodataset.org/train2017/{image["id"]:012d}.jpg'
    dataset = LVISV1Dataset(tiny.write(), data_root=str(tiny.root), data_prefix=dict(img='images/'))
    assert dataset.get_data_info(1)['img_path'] == f'{tiny.root}/images/train2017/000000000004.jpg'


def test_v1_format_made_of_other_data_may_have_file_names(tiny):
    for image in tiny.content['images']:
        image['coco_url'] = f'http://images.cocodataset.org/train2017/{image["id"]:012d}.jpg'
    dataset = LVISV1Dataset(tiny.write(), data_root=str(tiny.root), data_prefix=dict(img='images/'))
    assert dataset.get_data_info(1)['img_path'] == f'{tiny.root}/images/b.jpg'


def test_both_names_of_v05_are_registered():
    assert DATASETS.get('LVISDataset') is DATASETS.get('LVISV05Dataset') is LVISV05Dataset


def test_images_elsewhere_are_not_looked_for_on_the_disk(tree):
    dataset = LVISV05Dataset(
        tree.write(), data_prefix=dict(img='s3://bucket/val2017'), backend_args=dict(backend='petrel')
    )
    assert dataset.get_data_info(0)['img_path'] == 's3://bucket/val2017/000000000011.jpg'


def test_real_annotations(shared_data):
    path = shared_data / 'lvis_v0.5_val_100.json.gz'
    dataset = LVISV05Dataset(path, data_prefix=dict(img='images/val2017'), test_mode=True)
    assert len(dataset) == 100 and len(dataset.metainfo['classes']) == 1230
    assert dataset.class_frequency().instance_count.sum() == 977
    assert dataset.get_data_info(0)['img_path'].startswith('images/val2017/0000')

    official = LVIS.__new__(LVIS)
    official.logger = logging.getLogger('lvis')
    official.dataset = json.loads(gzip.decompress(path.read_bytes()))
    official._create_index()
    for index in range(100):
        info = dataset.get_data_info(index)
        annotations = official.img_ann_map[info['img_id']]
        categories = [dataset.metainfo['category_ids'][instance['bbox_label']] for instance in info['instances']]
        expected = [a['category_id'] for a in annotations if min(a['bbox'][2:]) >= 1 and a['area'] > 0]
        assert categories == expected
    images = dataset.images_of_class()
    for category_id, image_ids in official.cat_img_map.items():
        label = dataset.metainfo['category_ids'].index(category_id)
        assert set(dataset.index.image_ids[images[label]].tolist()) == set(image_ids)
