"""Data sets made of others."""
import math

import pytest

from mmdet.datasets import ClassBalancedDataset, ConcatDataset, Draw, RepeatDataset
from mmdet.errors import ConfigError
from mmdet.registry import DATASETS

from .conftest import TinyCoco, rectangle

PIPELINE = [dict(type=name) for name in ('LoadImageFromFile', 'LoadAnnotations', 'RandomFlip', 'PackDetInputs')]


def config(tiny):
    tiny.write()
    return dict(
        type='CocoDataset',
        ann_file='tiny.json',
        data_root=str(tiny.root),
        data_prefix=dict(img='images'),
        pipeline=PIPELINE,
    )


def image_ids(dataset):
    return [dataset.get_data_info(index)['img_id'] for index in range(len(dataset))]


def test_repeating(tiny):
    inner = DATASETS.build(config(tiny))
    dataset = DATASETS.build(dict(type='RepeatDataset', dataset=config(tiny), times=3))
    assert isinstance(dataset, RepeatDataset) and len(dataset) == 9 and image_ids(dataset) == [11, 4, 9] * 3
    assert dataset.class_frequency() == inner.class_frequency() and dataset.metainfo == inner.metainfo
    assert [i.tolist() for i in dataset.images_of_class()] == [i.tolist() for i in inner.images_of_class()]
    assert dataset.get_cat_ids(4) == inner.get_cat_ids(1)


def test_a_draw_keeps_its_key_on_its_way_in(tiny):
    dataset = RepeatDataset(config(tiny), 2)
    sample = dataset[Draw(4, seed=1, number=9, class_label=2)]['data_samples']
    assert (sample.img_id, sample.draw_key, sample.drawn_class) == (4, (1, 9), 2)
    assert dataset[4]['data_samples'].draw_key == (0, 4)


def test_joining(tiny, tmp_path):
    (tmp_path / 'other').mkdir()
    other = TinyCoco(tmp_path / 'other')
    other.annotations.append(dict(id=9, image_id=9, category_id=5, **rectangle(1, 1, 9, 9)))
    dataset = DATASETS.build(dict(type='ConcatDataset', datasets=[config(tiny), config(other)]))
    assert isinstance(dataset, ConcatDataset) and image_ids(dataset) == [11, 4, 9] * 2
    assert [i.tolist() for i in dataset.images_of_class()] == [[0, 1, 3, 4], [5], [0, 1, 3, 4]]
    assert [i.tolist() for i in dataset.images_to_learn_class()] == [[0, 3], [5], [0, 1, 3, 4]]
    assert dataset.class_frequency().instance_count.tolist() == [4, 1, 4]
    assert dataset[4]['data_samples'].img_path.startswith(str(other.root))
    other.content['categories'][0]['name'] = 'mug'
    with pytest.raises(ConfigError, match='different classes'):
        ConcatDataset([config(tiny), config(other)])


def test_repeat_factors(shared_data):
    """Against LVIS's formula, written out."""
    folder = shared_data / 'coco128'
    cfg = dict(type='CocoDataset', ann_file='instances.json', data_root=str(folder), data_prefix=dict(img='images'))
    inner = DATASETS.build(cfg)
    threshold = 0.05
    share = {}
    for index in range(len(inner)):
        for label in set(inner.get_cat_ids(index)):
            share[label] = share.get(label, 0) + 1 / len(inner)
    expected = []
    for index in range(len(inner)):
        factors = [max(1, math.sqrt(threshold / share[label])) for label in inner.get_cat_ids(index)]
        expected += [int(inner.index.image_ids[index])] * math.ceil(max(factors, default=1) - 1e-9)
    dataset = DATASETS.build(dict(type='ClassBalancedDataset', oversample_thr=threshold, dataset=cfg))
    assert isinstance(dataset, ClassBalancedDataset) and image_ids(dataset) == expected
    assert len(dataset) > len(inner) and dataset.class_frequency() == inner.class_frequency()
    for one, other in zip(dataset.images_of_class(), inner.images_of_class(), strict=True):
        assert [expected[i] for i in one] == [int(inner.index.image_ids[i]) for i in other]


@pytest.mark.parametrize('threshold', [0.05, 0.3])
def test_instance_aware_repeat_factors(shared_data, threshold):
    """Against IRFS's formula, written out."""
    folder = shared_data / 'coco128'
    cfg = dict(type='CocoDataset', ann_file='instances.json', data_root=str(folder), data_prefix=dict(img='images'))
    inner = DATASETS.build(cfg)
    images, instances = {}, {}
    for index in range(len(inner)):
        labels = inner.get_cat_ids(index)
        for label in labels:
            instances[label] = instances.get(label, 0) + 1
        for label in set(labels):
            images[label] = images.get(label, 0) + 1
    total = sum(instances.values())
    expected = []
    for index in range(len(inner)):
        factors = [1.0]
        for label in inner.get_cat_ids(index):
            share = math.sqrt(images[label] / len(inner) * instances[label] / total)
            factors.append(math.sqrt(threshold / share))
        expected += [int(inner.index.image_ids[index])] * math.ceil(max(factors) - 1e-9)
    config = dict(type='ClassBalancedDataset', oversample_thr=threshold, dataset=cfg)
    dataset = DATASETS.build(config | dict(instance_aware=True))
    assert image_ids(dataset) == expected
    assert len(dataset) > len(inner) and image_ids(dataset) != image_ids(DATASETS.build(config))
