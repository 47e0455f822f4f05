import gc
import gzip
import json
import weakref
import zipfile

import pytest
from hotcoco import mask as rle

from mmdet.errors import AnnotationError
from mmdet.evaluation import annotation_stream, ground_truth
from mmdet.evaluation.annotation_stream import stream_annotation_file
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


def expected_records(content):
    for section, value in content.items():
        for record in value if isinstance(value, list) else [value]:
            yield section, record


@pytest.fixture(params=['json', 'json.gz', 'json.zip'])
def packed(request, tmp_path):
    """Writes text as a plain or packed file."""

    def write(text):
        path = tmp_path / f'annotations.{request.param}'
        if request.param == 'json.gz':
            path.write_bytes(gzip.compress(text.encode()))
        elif request.param == 'json.zip':
            with zipfile.ZipFile(path, 'w') as archive:
                archive.writestr('folder/annotations.json', text)
        else:
            path.write_text(text, encoding='utf-8')
        return path

    return write


@pytest.mark.parametrize('chunk', [1, 7, 1 << 20])
@pytest.mark.parametrize('style', [dict(), dict(indent=1, ensure_ascii=False), dict(separators=(',', ':'))])
def test_records_come_in_order_whatever_the_chunks(packed, monkeypatch, chunk, style):
    monkeypatch.setattr(annotation_stream, 'CHUNK', chunk)
    assert list(stream_annotation_file(packed(json.dumps(CONTENT, **style)))) == list(expected_records(CONTENT))


def test_real_file(lvis_val_100):
    content = json.loads(lvis_val_100.read_text())
    assert list(stream_annotation_file(lvis_val_100)) == list(expected_records(content))


@pytest.mark.parametrize('share', [0, 0.3, 0.7, 0.999])
def test_a_file_cut_short_is_named(packed, share):
    text = json.dumps(CONTENT)
    path = packed(text[: int(share * len(text))])
    with pytest.raises(AnnotationError, match=rf'^{path}: not a whole JSON annotation file \(.*cut short'):
        list(stream_annotation_file(path))


@pytest.mark.parametrize('text', ['[1, 2]', '{"images": [1 2]}', '{"images": [tru]}', '{"images" [1]}'])
def test_what_is_no_json_object_is_named(packed, text):
    with pytest.raises(AnnotationError, match='^[^\n]*not a whole JSON annotation file[^\n]*$'):
        list(stream_annotation_file(packed(text)))


@pytest.mark.parametrize('suffix', ['json.gz', 'json.zip'])
def test_a_damaged_archive_is_named(tmp_path, suffix):
    path = tmp_path / f'a.{suffix}'
    for data in (b'', b'no archive', gzip.compress(json.dumps(CONTENT).encode())[:60]):
        path.write_bytes(data)
        with pytest.raises(AnnotationError, match=f'^{path}: '):
            list(stream_annotation_file(path))


class TestGroundTruth:
    @pytest.fixture
    def write(self, tmp_path):
        def write(content):
            path = tmp_path / 'val.json'
            path.write_text(json.dumps(content))
            return path

        return write

    def test_what_is_kept(self, write):
        truth = read_ground_truth(write(CONTENT), with_masks=False)
        assert list(truth.categories) == [2, 5]
        assert truth.images == {7: {'id': 7, 'height': 20, 'width': 30}}
        annotation = {'id': 1, 'image_id': 7, 'category_id': 2, 'bbox': [1, 2, 3, 4], 'area': 12.0}
        assert truth.annotations(7) == [annotation]

    def test_is_shared_while_in_use_and_read_again_when_the_file_changes(self, write):
        path = write(CONTENT)
        first = read_ground_truth(path, with_masks=False)
        assert read_ground_truth(str(path), with_masks=False) is first
        write({**CONTENT, 'images': CONTENT['images'] + [{'id': 9, 'height': 5, 'width': 5}]})
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

    def test_masks(self, write):
        square = [2.0, 2.0, 8.0, 2.0, 8.0, 8.0, 2.0, 8.0]
        nan = float('nan')

        def area(segmentation):
            content = {**CONTENT, 'annotations': [CONTENT['annotations'][0] | {'segmentation': segmentation}]}
            (annotation,) = read_ground_truth(write(content), with_masks=True).annotations(7)
            return int(rle.area(annotation['segmentation']))

        assert area([square]) == area([square, [1.0, 2.0, 3.0, 4.0]]) == area([square, [nan] * 6]) == 36
        assert area([]) == area([[nan] * 8]) == 0
        assert area({'size': [20, 30], 'counts': [10, 7, 583]}) == 7
        for unreadable in (17, {'size': [20, 30]}, [1, 2, 3, 4, 5, 6]):
            with pytest.raises(AnnotationError, match='annotation 1 has no readable mask'):
                area(unreadable)
        with pytest.raises(AnnotationError, match="annotations record 1 has no 'segmentation'"):
            read_ground_truth(write(CONTENT), with_masks=True)

    def test_polygons_left_out_are_counted_in_one_warning(self, write, monkeypatch):
        told = []
        monkeypatch.setattr(ground_truth, 'print_log', lambda message, **_: told.append(message))
        broken = CONTENT['annotations'][0] | {'segmentation': [[1.0, 2.0, 3.0]]}
        read_ground_truth(write({**CONTENT, 'annotations': [broken, broken | {'id': 4}]}), with_masks=True)
        assert len(told) == 1 and '2 annotations (first: 1) have polygons with fewer than 3 points' in told[0]
