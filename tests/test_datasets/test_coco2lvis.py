"""From COCO to LVIS format."""
import json
from collections import Counter

import pytest
from lvis import LVIS

from mmdet.datasets import read_json
from mmdet.datasets.conversion import coco_to_lvis, frequency_letter
from mmdet.errors import AnnotationError


@pytest.mark.parametrize('count, letter', [(0, 'r'), (10, 'r'), (11, 'c'), (100, 'c'), (101, 'f')])
def test_thresholds_are_lvis(count, letter):
    assert frequency_letter(count) == letter


def test_counts_and_lists(tiny, tmp_path):
    summary = coco_to_lvis(tiny.write(), tmp_path / 'lvis.json')
    lvis = json.loads((tmp_path / 'lvis.json').read_text())
    assert [category['id'] for category in lvis['categories']] == [3, 5, 7]
    assert [category['instance_count'] for category in lvis['categories']] == [2, 0, 2]
    assert [category['image_count'] for category in lvis['categories']] == [2, 0, 2]
    assert {category['frequency'] for category in lvis['categories']} == {'r'}
    first, second, third = lvis['images']
    assert (first['neg_category_ids'], first['not_exhaustive_category_ids']) == ([5], [])
    assert (second['neg_category_ids'], second['not_exhaustive_category_ids']) == ([5], [3])
    assert third['neg_category_ids'] == [3, 5, 7]
    crowds = [annotation for annotation in lvis['annotations'] if annotation.get('ignore')]
    assert [annotation['id'] for annotation in crowds] == [4]
    assert summary.endswith('3 images, 4 annotations, 3 classes (3 rare, 0 common, 0 frequent)')


def test_a_validation_file_gets_the_counts_of_training(tiny, tmp_path):
    val = tiny.write('val.json')
    tiny.many()
    coco_to_lvis(val, tmp_path / 'lvis.json.gz', tiny.write('train.json'))
    lvis = read_json(tmp_path / 'lvis.json.gz')
    assert len(lvis['annotations']) == 4 and lvis['categories'][0]['instance_count'] == 202


@pytest.mark.parametrize(
    'key, message', [('annotations', 'no list "annotations"'), ('category_id', 'record 0 of "annotations" has no')]
)
def test_files_that_are_not_coco(tiny, tmp_path, key, message):
    tiny.content.pop(key, None)
    if key == 'category_id':
        del tiny.annotations[0][key]
    with pytest.raises(AnnotationError, match=message):
        coco_to_lvis(tiny.write(), tmp_path / 'lvis.json')
    assert not (tmp_path / 'lvis.json').exists()


BAD_RECORDS = {
    'category unknown': (dict(category_id=99), 'of an unknown category; first: annotation 77: category_id 99'),
    'category null': (dict(category_id=None), 'of an unknown category; first: annotation 77: category_id None'),
    'category a word': (dict(category_id='3'), 'of an unknown category; first: annotation 77: category_id 3'),
    'image unknown': (dict(image_id=98), 'of an unknown image; first: annotation 77: image_id 98'),
    'image a list': (dict(image_id=[11]), r'of an unknown image; first: annotation 77: image_id \[11\]'),
}


@pytest.mark.parametrize('change, message', BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_annotations_of_nothing_known_are_left_out_with_a_word_or_refused(
    tiny, tmp_path, warnings_logged, change, message
):
    tiny.annotations.append(dict(id=77, image_id=11, category_id=3) | change)
    with pytest.raises(AnnotationError, match=f'^{tiny.write()}: 1 of 5 .*{message}'):
        coco_to_lvis(tiny.write(), tmp_path / 'lvis.json')
    tiny.many()
    coco_to_lvis(tiny.write(), tmp_path / 'lvis.json')
    lvis = read_json(tmp_path / 'lvis.json')
    assert len(lvis['annotations']) == 204 and sum(c['instance_count'] for c in lvis['categories']) == 204
    (warning,) = warnings_logged
    assert '1 of 205 annotations' in warning


@pytest.mark.parametrize('key', ['images', 'categories'])
def test_ids_must_be_numbers(tiny, tmp_path, key):
    tiny.content[key][1]['id'] = 'x'
    with pytest.raises(AnnotationError, match=f'record 1 of "{key}" has the id x, which is no number'):
        coco_to_lvis(tiny.write(), tmp_path / 'lvis.json')


@pytest.mark.parametrize('name', ['o.json.zip', 'o.zip', 'o', 'o.txt', 'o.gz'])
def test_names_that_would_promise_another_format_are_refused(tiny, tmp_path, name):
    with pytest.raises(AnnotationError, match=rf'/{name}: cannot be written under this name; .* \.json or \.json\.gz'):
        coco_to_lvis(tiny.write(), tmp_path / name)
    assert not (tmp_path / name).exists()


def test_real_photographs(shared_data, tmp_path, run_tool):
    source, target = shared_data / 'coco128/instances.json', tmp_path / 'lvis.json'
    status, printed, _ = run_tool('dataset_converters/coco2lvis.py', source, target)
    assert status == 0 and '128 images, 939 annotations, 80 classes' in printed
    lvis = LVIS(target)
    coco = read_json(source)
    images = Counter(c for _, c in {(a['image_id'], a['category_id']) for a in coco['annotations']})
    for category in lvis.load_cats(None):
        assert category['image_count'] == images[category['id']]
        assert category['frequency'] == frequency_letter(images[category['id']])
    assert sum(bool(a.get('iscrowd')) for a in coco['annotations']) == 10
    not_exhaustive = {(i['id'], c) for i in lvis.dataset['images'] for c in i['not_exhaustive_category_ids']}
    assert not_exhaustive == {(a['image_id'], a['category_id']) for a in coco['annotations'] if a['iscrowd']}
    for image in lvis.dataset['images']:
        present = {annotation['category_id'] for annotation in lvis.img_ann_map[image['id']]}
        assert len(present) + len(image['neg_category_ids']) == 80


def test_a_missing_file_is_one_line(tmp_path, run_tool):
    status, _, complaint = run_tool('dataset_converters/coco2lvis.py', 'absent.json', tmp_path / 'lvis.json')
    assert status == 2 and complaint == 'error: absent.json: no such annotation file; check data_root and ann_file\n'
