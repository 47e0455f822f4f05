"""JSON as it lies: plain, gzipped, zipped; whole or not."""
import gzip
import json
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet.datasets import annotation_file
from mmdet.datasets.annotation_file import read_json, read_json_items, write_json
from mmdet.errors import AnnotationError

CONTENT = dict(images=[dict(id=1)], annotations=[dict(id=1, name='Größe')], info={})


def zipped(path, *names):
    with zipfile.ZipFile(path, 'w') as archive:
        for name in names:
            archive.writestr(name, json.dumps(CONTENT))
    return path


def test_all_packings_give_the_same(tmp_path):
    plain, packed = tmp_path / 'a.json', tmp_path / 'a.json.gz'
    plain.write_text(json.dumps(CONTENT))
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    archive = zipped(tmp_path / 'a.json.zip', 'a.json', '__MACOSX/._a.json')
    assert read_json(plain) == read_json(packed) == read_json(str(archive)) == CONTENT


@pytest.mark.parametrize('name', ['a.json', 'a.json.gz', 'a.json.zip'])
@pytest.mark.parametrize('share', [0.0, 0.3, 0.9])
def test_a_file_cut_short_is_one_line(tmp_path, name, share):
    path = tmp_path / name
    whole = json.dumps(CONTENT).encode()
    if name.endswith('.gz'):
        whole = gzip.compress(whole)
    elif name.endswith('.zip'):
        whole = zipped(tmp_path / 'whole.zip', 'a.json').read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(AnnotationError, match=r'a\.json.*cut short') as error:
        read_json(path)
    assert '\n' not in str(error.value)


def test_a_missing_file_and_other_oddities(tmp_path):
    with pytest.raises(AnnotationError, match='no such annotation file'):
        read_json(tmp_path / 'absent.json')
    with pytest.raises(AnnotationError, match='2 JSON files'):
        read_json(zipped(tmp_path / 'two.zip', 'a.json', 'b.json'))
    (tmp_path / 'list.json').write_text('[1, 2]')
    with pytest.raises(AnnotationError, match=r"list.json: not a JSON object; it begins with '\['$"):
        read_json(tmp_path / 'list.json')
    (tmp_path / 'blank.json').write_text(' \n')
    with pytest.raises(AnnotationError, match=r"blank.json: not whole as JSON \(Expecting '{' at character 2\)"):
        read_json(tmp_path / 'blank.json')
    (tmp_path / 'image.json').write_bytes(b'\xff\xd8\xff')
    with pytest.raises(AnnotationError, match='not UTF-8'):
        read_json(tmp_path / 'image.json')
    with pytest.raises(AnnotationError, match='cannot be read'):
        read_json(tmp_path)


@pytest.mark.parametrize('images', [': [{} {}]', ': [tru]', ' [1]', ': [{},]', f': [{"9" * 5000}]', f': {"[" * 5000}'])
def test_what_is_no_json_is_one_line(tmp_path, images):
    (tmp_path / 'a.json').write_text(f'{{"images"{images}}}')
    with pytest.raises(AnnotationError, match=r'a\.json: not whole as JSON \([^\n]*$'):
        read_json(tmp_path / 'a.json')


@pytest.mark.parametrize('suffix', ['json.gz', 'json.zip'])
def test_a_damaged_archive_is_named(tmp_path, suffix):
    path = tmp_path / f'a.{suffix}'
    for data in (b'', b'no archive', gzip.compress(json.dumps(CONTENT).encode())[:-6]):
        path.write_bytes(data)
        with pytest.raises(AnnotationError, match=f'^{path}: '):
            read_json(path)


def test_numbers_only_python_knows_are_read(tmp_path):
    content = {'annotations': [{'id': 10**30}, {'area': float('inf')}, {'note': '}, {'}, {'id': 3}]}
    (tmp_path / 'a.json').write_text(json.dumps(content))
    assert read_json(tmp_path / 'a.json') == content


@pytest.mark.parametrize('name', ['a.json', 'a.json.gz', 'a.json.zip'])
@pytest.mark.parametrize('chunk', [1, 7, 50, 1 << 20])
@pytest.mark.parametrize('style', [dict(), dict(indent=1, ensure_ascii=False), dict(separators=(',', ':'))])
def test_chunks_and_styles_do_not_matter(tmp_path, monkeypatch, name, chunk, style):
    monkeypatch.setattr(annotation_file, '_CHUNK', chunk)
    records = [{'id': i, 'note': 'größer \\" ]}, {"', 'parts': [{'x': -1.5e-3 * i}, {}]} for i in range(9)]
    content = {'info': {'year': 2020}, 'annotations': records, 'version': 12345678901234567890, 'images': records[:1]}
    text = json.dumps(content, **style)
    if name.endswith('.zip'):
        with zipfile.ZipFile(tmp_path / name, 'w') as archive:
            archive.writestr('folder/annotations.json', text)
    else:
        (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith('.gz') else text.encode())
    streamed = [
        (key, list(value) if key == 'annotations' else value)
        for key, value in read_json_items(tmp_path / name, streamed=['annotations'])
    ]
    assert streamed == list(content.items())


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


RECORDS = st.lists(st.dictionaries(st.text(max_size=3), VALUES, max_size=3), max_size=6)


@pytest.mark.slow
@given(
    st.dictionaries(st.sampled_from(['annotations', 'images', 'x', '']), VALUES | RECORDS, max_size=4),
    st.sampled_from([None, 1, '\t']),
    st.sampled_from([1, 20, 1 << 20]),
)
@settings(max_examples=200, deadline=None)
def test_streamed_items_are_what_json_reads(tmp_path_factory, content, indent, chunk):
    path = tmp_path_factory.mktemp('json') / 'a.json'
    path.write_text(json.dumps(content, indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(annotation_file, '_CHUNK', chunk)
        assert_streamed(path, content)


def assert_streamed(path, content):
    """The file's items are `content`, the annotations an iterator over them."""
    streamed = {}
    for key, value in read_json_items(path, streamed=['annotations']):
        is_iterator = not isinstance(value, list | dict | str | int | float | None)
        assert is_iterator == (key == 'annotations' and isinstance(content[key], list))
        streamed[key] = list(value) if is_iterator else value
    assert streamed == content == read_json(path)


def test_a_cut_is_found_after_the_elements_before_it(tmp_path):
    path = tmp_path / 'a.json'
    path.write_text('{"annotations": [{"id": 1}, {"id": 2}, {"id"')
    elements = []
    with pytest.raises(AnnotationError, match='cut short'):
        for _, value in read_json_items(path, streamed=['annotations']):
            for element in value:
                elements.append(element['id'])
    assert elements == [1, 2]


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch):
    for name in ('new/a.json', 'a.json.gz'):
        write_json(tmp_path / name, CONTENT)
        assert read_json(tmp_path / name) == CONTENT
    assert not list(tmp_path.rglob('*.tmp'))

    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('pathlib.Path.replace', full)
    with pytest.raises(AnnotationError, match='No space left'):
        write_json(tmp_path / 'b.json', CONTENT)
    assert not list(tmp_path.glob('b*'))
