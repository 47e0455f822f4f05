import json

import pytest

from mmdet.errors import UserError
from mmdet.evaluation import write_per_class
from mmdet.evaluation.results_file import ResultsPart, join_parts

ROWS = [
    {'name': 'acorn', 'category_id': 1, 'frequency': 'r', 'train_instances': 2, 'bbox_AP': float('nan')},
    {'name': 'naïve "quote"', 'category_id': 2, 'frequency': 'f', 'train_instances': 2000, 'bbox_AP': 1 / 3},
]


def test_per_class_json_keeps_every_digit_and_has_null_for_what_is_unknown(tmp_path):
    path = tmp_path / 'new folder/per_class.json'
    write_per_class(ROWS, path)

    def refuse(constant):
        raise AssertionError(f'{constant} is not JSON')

    assert json.loads(path.read_text(), parse_constant=refuse) == [ROWS[0] | {'bbox_AP': None}, ROWS[1]]
    assert [file.name for file in path.parent.iterdir()] == ['per_class.json']


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / 'per_class.json'
    path.write_text('old')
    with pytest.raises(TypeError):
        write_per_class([{'name': object()}], path)
    assert path.read_text() == 'old'
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match='^[^\n]*per_class.json: could not be written[^\n]*$'):
        write_per_class(ROWS, path)
    assert [file.name for file in tmp_path.iterdir()] == ['per_class.json']


def test_parts_of_several_processes_become_one_file(tmp_path):
    path = str(tmp_path / 'run.bbox.json')
    parts = [ResultsPart(path) for _ in range(3)]
    parts[0].write(1, [{'image_id': 1, 'score': 0.5}, {'image_id': 1, 'score': 0.25}])
    parts[0].write(3, [])
    parts[1].write(2, [{'image_id': 2, 'segmentation': {'size': [2, 2], 'counts': b'04'}}])
    parts[1].write(1, [{'image_id': 1, 'score': 0.5}])
    names = [part.flushed() for part in parts]
    assert names[2] is None
    join_parts(names[:2], path)
    for part in parts:
        part.close()
    assert json.loads((tmp_path / 'run.bbox.json').read_text()) == [
        {'image_id': 1, 'score': 0.5},
        {'image_id': 1, 'score': 0.25},
        {'image_id': 2, 'segmentation': {'size': [2, 2], 'counts': '04'}},
    ]
    assert [file.name for file in tmp_path.iterdir()] == ['run.bbox.json']
    join_parts([], path)
    assert json.loads((tmp_path / 'run.bbox.json').read_text()) == []
