"""The index of an annotation file: what is kept, what is left out with a word, what is refused."""
import dataclasses
import gzip
import json
import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mmdet.datasets import annotation_cache
from mmdet.datasets.annotation_cache import load_annotation_index
from mmdet.datasets.annotation_index import CROWD, NO_MASK, NO_OBJECT, Strings
from mmdet.datasets.annotation_reader import index_annotations
from mmdet.errors import AnnotationError

from .conftest import rectangle


def test_everything_in_the_file_is_in_the_index(tiny):
    index = index_annotations(tiny.write())
    assert list(index.category_names) == ['cat', 'car', 'cup'] and index.category_ids.tolist() == [3, 5, 7]
    assert index.image_ids.tolist() == [11, 4, 9] and index.image_sizes.tolist() == [[40, 60], [60, 40], [40, 60]]
    assert list(index.image_names) == ['a.png', 'b.jpg', 'c.png'] and list(index.image_urls) == ['', '', '']
    assert index.first_instance.tolist() == [0, 2, 4, 4] and index.image_of_instance().tolist() == [0, 0, 1, 1]
    assert index.category.tolist() == [0, 2, 2, 0]
    assert index.boxes[0].tolist() == [5, 6, 25.5, 16.25] and index.boxes.dtype == np.float32
    assert index.flags.tolist() == [0, 0, 0, CROWD]
    (polygon,) = index.masks_of(0)[0]
    assert polygon.dtype == np.float64 and polygon.tolist() == [[5, 6], [25.5, 6], [25.5, 16.25], [5, 16.25]]
    assert index.masks_of(2) == [] and index.warning == ''


@pytest.mark.parametrize('decimals, dtype', [(2, np.int32), (5, np.float64)])
def test_coordinates_come_back_to_the_last_bit(tiny, decimals, dtype, monkeypatch):
    monkeypatch.setattr('mmdet.datasets.annotation_reader._CHUNK', 50)
    rng = np.random.default_rng(0)
    polygons = [np.round(rng.uniform(-3, 640, 2 * rng.integers(3, 30)), decimals).tolist() for _ in range(60)]
    tiny.annotations[0]['segmentation'] = polygons
    index = index_annotations(tiny.write())
    assert index.points.dtype == dtype
    assert [polygon.ravel().tolist() for polygon in index.masks_of(0)[0]] == polygons


def test_a_coordinate_too_fine_for_hundredths_among_others(tiny, monkeypatch):
    monkeypatch.setattr('mmdet.datasets.annotation_reader._CHUNK', 1)
    tiny.annotations[2]['segmentation'] = [[1.001, 2, 3, 4, 5, 6]]
    index = index_annotations(tiny.write())
    assert index.points.dtype == np.float64
    assert index.masks_of(0)[0][0][1].tolist() == [25.5, 6] and index.masks_of(0)[1][0][0].tolist() == [1.001, 2]


def test_run_length_encodings_of_both_kinds(tiny):
    bitmap = np.zeros((40, 60), np.uint8, order='F')
    bitmap[4:20, 10:33] = 1
    rle = coco_mask.encode(bitmap)
    lengths = [4 + 10 * 40, 16] + [24, 16] * 22 + [40 * 60 - 404 - 16 - 40 * 22]
    tiny.annotations[0]['segmentation'] = dict(size=[40, 60], counts=lengths)
    tiny.annotations[2]['segmentation'] = dict(size=[40, 60], counts=rle['counts'].decode())
    index = index_annotations(tiny.write())
    for mask in index.masks_of(0):
        assert np.array_equal(coco_mask.decode(mask), bitmap)


BAD_RECORDS = {
    'unknown category': (dict(category_id=99), 'of an unknown category.*annotation 77: category_id 99'),
    'unknown image': (dict(image_id=98), 'of an unknown image.*annotation 77: image_id 98'),
    'category id too large': (dict(category_id=10**30), 'without usable category_id, image_id and bbox'),
    'box too large': (dict(bbox=[10**400, 5, 10, 10]), 'without usable category_id, image_id and bbox'),
    'box outside': (dict(bbox=[70, 5, 10, 10]), 'box outside its image.*annotation 77'),
    'box not numbers': (dict(bbox=[None, 5, 10, 10]), 'without usable category_id, image_id and bbox'),
    'polygon with NaN': (dict(segmentation=[[1, 2, float('nan'), 4, 5, 6]]), 'polygon that has NaN.*annotation 77'),
    'polygon with infinity': (dict(segmentation=[[1, 2, float('inf'), 4, 5, 6]]), 'polygon that has NaN'),
    'polygon too large': (dict(segmentation=[[1, 2, 10**400, 4, 5, 6]]), 'polygon that has NaN'),
    'two bad polygons': (dict(segmentation=[[1, 2, 3, 4], [5, 6]]), '1 of 5 .*with a polygon that has NaN or fewer'),
    'bad in two ways': (dict(category_id=99, segmentation=[[1, 2]]), '1 of 5 .*: 1 with a polygon'),
    'polygon of two points': (dict(segmentation=[[1, 2, 3, 4]]), 'fewer than 3 points.*annotation 77'),
    'polygon of words': (dict(segmentation=[['a', 'b']]), 'polygon'),
    'segmentation of a wrong kind': (dict(segmentation=5), 'unreadable segmentation'),
    'RLE of another size': (dict(segmentation=dict(size=[4, 4], counts=[16])), 'RLE that does not fit'),
    'RLE too short': (dict(segmentation=dict(size=[40, 60], counts=[16])), 'RLE that does not fit'),
    'damaged RLE': (dict(segmentation=dict(size=[40, 60], counts='~~')), 'RLE that does not fit'),
}


@pytest.mark.parametrize('change, message', BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_one_bad_record_among_few_is_an_error(tiny, change, message):
    tiny.annotations.append(dict(id=77, image_id=11, category_id=3, **rectangle(5, 6, 20, 10)) | change)
    path = tiny.write()
    with pytest.raises(AnnotationError, match=message) as error:
        index_annotations(path)
    assert str(path) in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('change, message', BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_one_bad_record_among_many_is_left_out_with_a_word(tiny, change, message):
    good = index_annotations(tiny.write())
    tiny.annotations.insert(0, dict(id=77, image_id=11, category_id=3, **rectangle(5, 6, 20, 10)) | change)
    tiny.many()
    index = index_annotations(tiny.write())
    assert '1 of 205 annotations cannot be used' in index.warning and '\n' not in index.warning
    left = np.flatnonzero((index.flags & (NO_OBJECT | NO_MASK) == 0) & (index.image_of_instance() == 0))
    assert index.boxes[left[:2]].tolist() == good.boxes[:2].tolist()
    assert index.masks_of(0)[left[0]][0].tolist() == good.masks_of(0)[0][0].tolist()


def test_an_annotation_is_used_without_its_bad_polygon(tiny):
    good = tiny.annotations[0]['segmentation'][0]
    tiny.annotations[0]['segmentation'] = [[1, 2, 3, 4], good, [5, 6, 7, 8]]
    tiny.many()
    index = index_annotations(tiny.write())
    assert '1 of 204 annotations' in index.warning and '1 used without a polygon that has NaN' in index.warning
    assert [polygon.ravel().tolist() for polygon in index.masks_of(0)[0]] == [good] and not index.flags[0]


def test_boxes_thinner_than_a_pixel_are_counted_but_no_objects(tiny):
    tiny.annotations[0]['bbox'] = [5, 6, 0.5, 10]
    tiny.annotations[1]['area'] = 0
    index = index_annotations(tiny.write())
    assert (index.flags & NO_OBJECT > 0).tolist() == [True, False, True, False] and index.warning == ''


def spoil(content, how):
    match how:
        case 'images':
            del content['images']
        case 'categories':
            content['categories'] = []
        case 'category name':
            del content['categories'][1]['name']
        case 'width':
            del content['images'][1]['width']
        case 'size':
            content['images'][1]['height'] = 0
        case 'file_name':
            del content['images'][1]['file_name']
        case 'file_name a number':
            content['images'][1]['file_name'] = 5
        case 'image id too large':
            content['images'][1]['id'] = 10**30
        case 'width too large':
            content['images'][1]['width'] = 1 << 31
        case 'image id':
            content['images'][1]['id'] = 11
        case 'category id':
            content['categories'][1]['id'] = 7
        case 'annotations':
            content['annotations'] = dict()


@pytest.mark.parametrize(
    'how, message',
    [
        ('images', 'no list "images"'),
        ('categories', 'no categories'),
        ('category name', "lacks a usable 'name'"),
        ('width', "image record 1 lacks a usable 'width'"),
        ('size', 'image 4 is 40x0 pixels'),
        ('file_name', 'image 4 has neither file_name nor coco_url'),
        ('file_name a number', 'image 4 has the file_name 5, which is no text'),
        ('image id too large', r'image record 1 lacks a usable number below 2\^63'),
        ('width too large', r'image record 1 lacks a usable number below 2\^31'),
        ('image id', '2 images have the id 11'),
        ('category id', '2 categories have the id 7'),
        ('annotations', '"annotations" is not a list'),
    ],
)
def test_a_file_that_lacks_what_it_must_have(tiny, how, message):
    spoil(tiny.content, how)
    path = tiny.write()
    with pytest.raises(AnnotationError, match=message) as error:
        index_annotations(path)
    assert str(path) in str(error.value) and '\n' not in str(error.value)


def test_a_file_cut_short_in_its_annotations(tiny):
    path = tiny.write()
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(AnnotationError, match='cut short'):
        index_annotations(path)


def test_packed_strings():
    strings = ['', 'a.jpg', 'Größe', '']
    packed = Strings.pack(strings)
    assert list(packed) == strings and len(packed) == 4


# ---------------------------------------------------------------- the index kept on disk


@pytest.fixture
def kept(tiny, monkeypatch):
    """An annotation file that counts as large, and where its index goes."""
    monkeypatch.setattr(annotation_cache, '_WORTH_KEEPING', 0)
    path = tiny.write()
    return tiny, path, path.with_name(path.name + '.index')


def equal(one, other):
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        same = list(a) == list(b) if isinstance(a, Strings) else np.array_equal(a, b)
        if not same or (isinstance(a, np.ndarray) and a.dtype != b.dtype):
            return False
    return True


def no_reading(monkeypatch):
    def fail(path):
        raise AssertionError('the JSON was read again')

    monkeypatch.setattr(annotation_cache, 'index_annotations', fail)


def test_the_second_time_the_index_is_mapped(kept, monkeypatch):
    tiny, path, index_file = kept
    tiny.annotations[0]['segmentation'] = [[1, 2, 3, 4]]
    tiny.many()
    tiny.write()
    first = load_annotation_index(path)
    assert index_file.exists() and not list(path.parent.glob('*.tmp'))
    no_reading(monkeypatch)
    second = load_annotation_index(path)
    assert equal(first, second) and equal(second, index_annotations(path)) and second.warning
    assert not second.points.flags.writeable


def test_of_several_that_start_at_once_one_makes_the_index(kept, monkeypatch):
    _, path, index_file = kept
    made = []

    def slowly(path):
        made.append(path)
        time.sleep(0.2)
        return index_annotations(path)

    monkeypatch.setattr(annotation_cache, 'index_annotations', slowly)
    with ThreadPoolExecutor(3) as several:
        indices = list(several.map(load_annotation_index, [path] * 3))
    assert made == [path] and index_file.exists()
    assert all(equal(index, index_annotations(path)) for index in indices)


def test_a_small_file_leaves_nothing_behind(tiny):
    path = tiny.write()
    load_annotation_index(path)
    assert not path.with_name(path.name + '.index').exists()


def test_a_changed_file_is_read_anew(kept):
    tiny, path, _ = kept
    load_annotation_index(path)
    tiny.annotations[0]['bbox'] = [6, 6, 20, 10]
    tiny.write()
    assert load_annotation_index(path).boxes[0].tolist() == [6, 6, 26, 16]


@pytest.mark.parametrize('size', [0, 10, 200, -1])
def test_a_damaged_index_is_made_anew(kept, size):
    _, path, index_file = kept
    load_annotation_index(path)
    index_file.write_bytes(index_file.read_bytes()[:size])
    assert equal(load_annotation_index(path), index_annotations(path))


def test_where_nothing_can_be_written_the_index_stays_in_memory(kept, monkeypatch, warnings_logged):
    _, path, index_file = kept

    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('pathlib.Path.replace', full)
    assert equal(load_annotation_index(path), index_annotations(path))
    assert not index_file.exists() and not list(path.parent.glob('*.tmp'))
    assert 'No space left' in warnings_logged[0]


def test_a_mapped_index_is_not_copied_to_workers(kept, monkeypatch):
    _, path, index_file = kept
    index = load_annotation_index(path)
    sent = pickle.dumps(index)
    assert len(sent) < 1000
    assert equal(pickle.loads(sent), index)
    index_file.unlink()
    with pytest.raises(AnnotationError, match='changed while it was in use'):
        pickle.loads(sent)


def test_real_annotations_come_back_as_they_were(shared_data):
    path = shared_data / 'lvis_v0.5_val_100.json.gz'
    content = json.loads(gzip.decompress(path.read_bytes()))
    index = index_annotations(path)
    of_image = {image['id']: [] for image in content['images']}
    for annotation in content['annotations']:
        of_image[annotation['image_id']].append(annotation)
    assert index.warning == '' and index.points.dtype == np.int32
    for i, image_id in enumerate(index.image_ids.tolist()):
        segmentations = [[part.ravel().tolist() for part in mask] for mask in index.masks_of(i)]
        assert segmentations == [annotation['segmentation'] for annotation in of_image[image_id]]
        ids = index.category_ids[index.category[index.instances_of(i)]].tolist()
        assert ids == [annotation['category_id'] for annotation in of_image[image_id]]
