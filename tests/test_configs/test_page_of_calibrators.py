"""What docs/calibrators.md and docs/extending.md say of configs, numbers and choices is what the code has."""
import re
from pathlib import Path

import numpy as np
import pytest

from mmdet.apis.comparison import Entry, variants
from mmdet.engine import load_config
from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead
from mmdet.registry import CALIBRATORS
from mmdet.structures import ClassFrequency

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / 'configs/_base_/calibration'
PAGE = (ROOT / 'docs/calibrators.md').read_text()
HEADER = ['method', 'config', 'looks at training images', 'computes from', 'base it works on', 'numbers trained']


def table() -> dict[str, list[str]]:
    """The rows of the table of all calibrators by the config's name; a row with two configs is there twice."""
    rows = [[cell.strip() for cell in line.strip('|').split(' | ')] for line in PAGE.split('\n') if line[:2] == '| ']
    (start,) = [number for number, row in enumerate(rows) if row[: len(HEADER)] == HEADER]
    of_methods = [row for row in rows[start + 1 :] if row[0].startswith('[') and len(row) == len(HEADER) + 1]
    return {name: row for row in of_methods for name in re.findall(r'`(\w+)`', row[1])}


ROWS = table()


@pytest.fixture(scope='module')
def box_head():
    """Mask R-CNN R50's for the classes of LVIS v0.5."""
    return Shared2FCBBoxHead(num_classes=1230, in_channels=256, fc_out_channels=1024, roi_feat_size=7)


def test_every_config_has_a_row():
    shortened = re.compile(r'last_layer|simcal_\d+steps')
    assert ROWS.keys() == {file.stem for file in FOLDER.glob('*.py') if not shortened.fullmatch(file.stem)}


def test_every_method_with_steps_has_a_short_config_for_glyph_lt():
    with_steps = {name for name in ROWS if load_config(FOLDER / f'{name}.py').calibration.get('max_steps')}
    short = {file.stem for file in (FOLDER / 'glyph_lt').glob('*.py')} - {'last_layer'}
    assert with_steps - {'simcal'} == short


@pytest.mark.parametrize('name', ROWS)
def test_a_row_says_what_a_calibrator_is(box_head, name):
    recipe = load_config(FOLDER / f'{name}.py').calibration
    counts = np.arange(1, 1231)
    calibrator = CALIBRATORS.build(dict(recipe.calibrator))
    calibrator.bind([box_head], ClassFrequency(tuple(map(str, counts)), counts, counts))
    *_, looks, _, _, trained, choices = ROWS[name]
    assert looks == ('trained' if calibrator.is_trained else 'a pass' if calibrator.takes_steps else 'no')
    learnt = sum(parameter.numel() for parameter in calibrator.parameters() if parameter.requires_grad)
    assert int(trained.replace(',', '')) == learnt
    tried: dict[str, list[float]] = {}
    for values in variants(Entry(name, recipe), calibrator, calibrator.score_settings[0]):
        for choice, value in values.items():
            if value not in tried.setdefault(choice, []):
                tried[choice].append(value)
    of_cell = [float(number) for number in re.findall(r'(?<=[:,] )[\d.]+', choices)]
    assert of_cell == [value for of_choice in tried.values() for value in of_choice]


@pytest.mark.parametrize('page', ['calibrators.md', 'extending.md'])
def test_configs_of_a_page_load_and_build(tmp_path, monkeypatch, page):
    monkeypatch.syspath_prepend(str(ROOT / 'tests/test_apis/extension'))
    (tmp_path / 'base.py').write_text(f"_base_ = '{ROOT}/configs/quickstart/base.py'\n")
    places = {'../_base_': FOLDER.parent, '../../myplugin': ROOT / 'tests/test_apis/extension'}
    configs = re.findall(r'```python\n(_base_.*?)```', (ROOT / 'docs' / page).read_text(), re.DOTALL)
    assert configs
    for text in configs:
        for shown, place in places.items():
            text = text.replace(f"'{shown}/", f"'{place}/")
        (tmp_path / 'config.py').write_text(text)
        assert CALIBRATORS.build(load_config(tmp_path / 'config.py').calibration.calibrator).score_settings


@pytest.mark.parametrize('page', ['calibrators.md', 'extending.md'])
def test_files_that_a_page_names_are_there(page):
    document = (ROOT / 'docs' / page).read_text()
    named = re.findall(r'(?:configs|tools|benchmarks)/[\w/.-]+\.py', document)
    links = re.findall(r'\]\(([^)#]+?)(?:#[^)]*)?\)', document)
    assert named and links
    for name in named:
        assert 'mydata' in name or 'NAME' in name or (ROOT / name).is_file(), name
    for link in links:
        assert link.startswith('https://') or (ROOT / 'docs' / link).exists(), link
