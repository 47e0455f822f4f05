"""The metrics' figures are those of the implementations that define them."""
import json

import metric_parity
import pytest


@pytest.fixture
def folder(oracle, shared_data):
    return oracle / 'metrics'


def test_every_figure(folder):
    differences = metric_parity.compare(folder)
    assert [each for each in differences if not each.passed] == []
    figures = json.loads((folder / 'expected.json').read_text())['figures']
    assert {each.figure for each in differences if each.by == 'MatchTable'} == figures.keys()
    by_metric = {each.figure for each in differences if each.by == 'LVISMetric'}
    special = {name for name in figures if 'boundaryiouapi' in name or 'tight_bbox' in name}
    assert by_metric == figures.keys() - special
    assert sum(each.where == '190 classes' for each in differences) == 19


@pytest.fixture
def copy(folder, tmp_path):
    """Of the folder, with one setting only."""
    for file in folder.glob('*.gz'):
        (tmp_path / file.name).symlink_to(file)
    expected = json.loads((folder / 'expected.json').read_text())
    expected['figures'] = {'pool_bbox_20': expected['figures']['pool_bbox_20']}
    return tmp_path, expected


@pytest.mark.parametrize(('error', 'status'), [(0, 0), (2e-9, 1)])
def test_exit_status(copy, error, status, shared_data, capsys):
    path, expected = copy
    expected['figures']['pool_bbox_20']['values']['AP-pooled-c'] += error
    (path / 'expected.json').write_text(json.dumps(expected))
    annotations = shared_data / 'lvis_v0.5_val_100.json.gz'
    assert metric_parity.report(path, annotations) == status
    assert ('DISAGREES' in capsys.readouterr().out) == bool(status)


def test_a_figure_that_is_missing_disagrees(copy, shared_data):
    path, expected = copy
    expected['figures']['pool_bbox_20']['values']['AP-pooled-x'] = 0.5
    (path / 'expected.json').write_text(json.dumps(expected))
    differences = metric_parity.compare(path, shared_data / 'lvis_v0.5_val_100.json.gz')
    assert [(each.where, each.passed) for each in differences] == [('AP-pooled-x', False)] * 2


def test_what_cannot_be_compared(tmp_path, capsys):
    assert metric_parity.report(tmp_path, None) == 2
    assert 'CANNOT BE COMPARED' in capsys.readouterr().out
