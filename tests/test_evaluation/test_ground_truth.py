import gc
import json
import weakref

import pytest
from hotcoco import mask as rle

from mmdet.errors import AnnotationError
from mmdet.evaluation import ground_truth
from mmdet.evaluation.ground_truth import read_ground_truth

CONTENT = {
    'info': {'year': 2020, 'contributors': ['a', 'b'], 'ratio': -1.5e-3},
    'annotations': [
        {'id': 1, 'image_id': 7, 'category_id': 2, 'bbox': [1, 2, 3, 4], 'area': 12.0, 'note': 'größer \\" ]}'},
        {'id': 2, 'image_id': 9, 'category_id': 2, 'bbox': [0, 0, 1, 1], 'area': 1},
    ],
    'images': [{'id': 7, 'height': 20, 'width': 30, 'file_name': 'a.jpg'}],
    'licenses': [],
    'version': 12345678901234567890,
    'categories': [{'id': 5, 'name': 'late'}, {'id': 2, 'name': 'früh', 'frequency': 'r'}],
}


SQUARE = [2.0, 2.0, 8.0, 2.0, 8.0, 8.0, 2.0, 8.0]
NAN = float('nan')
KNOWN = {**CONTENT, 'annotations': CONTENT['annotations'][:1]}


@pytest.fixture
def write(tmp_path):
    """Writes an annotation file."""

    def write(content):
        path = tmp_path / 'val.json'
        path.write_text(json.dumps(content))
        return path

    return write


@pytest.fixture
def warnings(monkeypatch):
    """The messages that reading gives."""
    told = []
    monkeypatch.setattr(ground_truth, 'print_log', lambda message, **_: told.append(message))
    return told


class TestGroundTruth:
    def test_what_is_kept(self, write):
        truth = read_ground_truth(write(KNOWN), with_masks=False)
        assert list(truth.categories) == [2, 5]
        assert truth.images == {7: {'id': 7, 'height': 20, 'width': 30}}
        annotation = {'id': 1, 'image_id': 7, 'category_id': 2, 'bbox': [1, 2, 3, 4], 'area': 12.0}
        assert truth.annotations(7) == [annotation]

    def test_is_shared_while_in_use_and_read_again_when_the_file_changes(self, write):
        path = write(KNOWN)
        first = read_ground_truth(path, with_masks=False)
        assert read_ground_truth(str(path), with_masks=False) is first
        write({**KNOWN, 'images': CONTENT['images'] + [{'id': 9, 'height': 5, 'width': 5}]})
        assert list(read_ground_truth(path, with_masks=False).images) == [7, 9]
        gone = weakref.ref(first)
        del first
        gc.collect()
        assert gone() is None

    @pytest.mark.parametrize('section', ['images', 'categories', 'annotations'])
    def test_a_missing_section_or_key_is_named(self, write, section):
        with pytest.raises(AnnotationError, match=f'lists no {section}'):
            read_ground_truth(write({key: value for key, value in CONTENT.items() if key != section}), False)
        broken = [{key: value for key, value in CONTENT[section][0].items() if key != 'id'}]
        with pytest.raises(AnnotationError, match=f"{section} record .* has no 'id'"):
            read_ground_truth(write({**CONTENT, section: broken}), False)
        with pytest.raises(AnnotationError, match=f"'17' among its {section}"):
            read_ground_truth(write({**CONTENT, section: [17]}), False)
        with pytest.raises(AnnotationError, match=f'"{section}" is not a list'):
            read_ground_truth(write({**CONTENT, section: {'id': 1}}), False)

    def test_masks(self, write, warnings):
        def area(segmentation):
            annotation = CONTENT['annotations'][0]
            good = [annotation | {'segmentation': [SQUARE]}] * 99
            content = {**CONTENT, 'annotations': [annotation | {'segmentation': segmentation}, *good]}
            annotations = read_ground_truth(write(content), with_masks=True).annotations(7)
            return int(rle.area(annotations[0]['segmentation']))

        assert area([SQUARE]) == area([SQUARE, [1.0, 2.0, 3.0, 4.0]]) == area([SQUARE, [NAN] * 6]) == 36
        assert area([]) == area([[NAN] * 8]) == 0
        assert area({'size': [20, 30], 'counts': [10, 7, 583]}) == 7
        assert len(warnings) == 4
        with pytest.raises(AnnotationError, match="annotations record 1 has no 'segmentation'"):
            read_ground_truth(write(CONTENT), with_masks=True)


BAD_ANNOTATIONS = {
    'unknown category': ({'category_id': 3}, 'of an unknown category; first: annotation 77: category_id 3'),
    'unknown image': ({'image_id': 9}, 'of an unknown image; first: annotation 77: image_id 9'),
    'category null': ({'category_id': None}, 'without usable id, image_id and category_id'),
    'image a list': ({'image_id': [7]}, 'without usable id, image_id and category_id'),
    'category too large': ({'category_id': 10**30}, 'without usable id, image_id and category_id'),
    'id negative': ({'id': -1}, 'without usable id, image_id and category_id; first: annotation -1'),
    'box null': ({'bbox': None}, 'without a box of 4 numbers'),
    'box of 2 numbers': ({'bbox': [1, 2]}, 'without a box of 4 numbers'),
    'box with NaN': ({'bbox': [1, NAN, 3, 4]}, 'without a box of 4 numbers'),
    'box of words': ({'bbox': ['1', '2', '3', '4']}, 'without a box of 4 numbers'),
    'box too large': ({'bbox': [1, 2, 3, 10**400]}, 'without a box of 4 numbers'),
    'area null': ({'area': None}, 'without a usable area'),
    'area NaN': ({'area': NAN}, 'without a usable area'),
    'no mask': ({'segmentation': None}, 'with an unreadable segmentation'),
    'mask a number': ({'segmentation': 17}, 'with an unreadable segmentation'),
    'RLE of another size': ({'segmentation': {'size': [30, 20], 'counts': [600]}}, 'RLE that does not fit the image'),
    'RLE too short': ({'segmentation': {'size': [20, 30], 'counts': [10]}}, 'RLE that does not fit the image'),
    'RLE damaged': ({'segmentation': {'size': [20, 30], 'counts': '~~'}}, 'RLE that does not fit the image'),
    'RLE without counts': ({'segmentation': {'size': [20, 30]}}, 'RLE that does not fit the image'),
}
POOR_MASKS = {
    'polygon with NaN': [SQUARE, [NAN] * 6, [NAN] * 8],
    'polygon of 2 points': [SQUARE, [1.0, 2.0, 3.0, 4.0]],
    'polygon of words': [SQUARE, ['a'] * 6],
    'polygon too large': [SQUARE, [10**400] * 6],
    'polygons without lists': [1, 2, 3, 4, 5, 6],
    'no polygon': [],
}


class TestUnusableAnnotations:
    @pytest.fixture
    def content(self):
        def content(change, num_good):
            good = CONTENT['annotations'][0] | {'segmentation': [SQUARE]}
            return {**CONTENT, 'annotations': [good | {'id': 77} | change, *[good] * num_good]}

        return content

    @pytest.mark.parametrize('change, message', BAD_ANNOTATIONS.values(), ids=BAD_ANNOTATIONS)
    def test_one_among_many_is_left_out_with_a_word(self, write, content, warnings, change, message):
        truth = read_ground_truth(write(content(change, 99)), with_masks=True)
        assert [annotation['id'] for annotation in truth.annotations(7)] == [1] * 99
        (warning,) = warnings
        assert '1 of 100 annotations cannot be used' in warning and message in warning and '\n' not in warning

    @pytest.mark.parametrize('change, message', BAD_ANNOTATIONS.values(), ids=BAD_ANNOTATIONS)
    def test_one_among_few_is_an_error(self, write, content, change, message):
        path = write(content(change, 98))
        with pytest.raises(AnnotationError) as error:
            read_ground_truth(path, with_masks=True)
        assert str(error.value).startswith(f'{path}: 1 of 99 ') and message in str(error.value)

    @pytest.mark.parametrize('segmentation', POOR_MASKS.values(), ids=POOR_MASKS)
    def test_a_polygon_is_left_out_and_its_annotation_counted_once(self, write, content, warnings, segmentation):
        truth = read_ground_truth(write(content({'segmentation': segmentation}, 99)), with_masks=True)
        assert rle.area(truth.annotations(7)[0]['segmentation']) == (36 if SQUARE in segmentation else 0)
        assert len(warnings) == 1 and '1 of 100 annotations' in warnings[0] and '1 used with' in warnings[0]

    def test_masks_do_not_matter_where_boxes_are_evaluated(self, write, content, warnings):
        truth = read_ground_truth(write(content({'segmentation': None}, 0)), with_masks=False)
        assert len(truth.annotations(7)) == 1 and not warnings

    def test_marks_come_in_one_form(self, write, content):
        truth = read_ground_truth(write(content({'iscrowd': None, 'ignore': True}, 0)), with_masks=False)
        assert (truth.annotations(7)[0]['iscrowd'], truth.annotations(7)[0]['ignore']) == (0, 1)


@pytest.mark.parametrize(
    'section, change, message',
    [
        ('images', {'height': 0}, 'image 7 is 30x0 pixels'),
        ('images', {'width': None}, 'image 7 is Nonex20 pixels'),
        ('images', {'width': '30'}, 'image 7'),
        ('images', {'id': [7]}, r'an image has the id \[7\]'),
        ('images', {'neg_category_ids': None}, 'image 7 has the neg_category_ids None, which is no list of ids'),
        ('images', {'not_exhaustive_category_ids': [[2]]}, 'image 7 has the not_exhaustive_category_ids'),
        ('categories', {'id': '5'}, 'a category has the id 5, which is no number'),
    ],
)
def test_images_and_categories_must_be_sound(write, section, change, message):
    first, *others = KNOWN[section]
    path = write({**KNOWN, section: [first | change, *others]})
    with pytest.raises(AnnotationError, match=message) as error:
        read_ground_truth(path, with_masks=False)
    assert str(error.value).startswith(f'{path}: ') and '\n' not in str(error.value)
