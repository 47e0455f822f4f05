"""The whole road, in two steps of training and two of calibration."""
import importlib.util
import io
import json
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from mmdet.apis import quickstart as module
from mmdet.apis.quickstart import quickstart
from mmdet.datasets.generation import generate_glyph_lt
from mmdet.engine import load_config, read_checkpoint

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
BASE = f"""
_base_ = '{CONFIGS}/quickstart/smoke_base.py'
generation = dict(train_images=12, val_images=8)
train_dataloader = dict(batch_size=2, num_workers=0)
test_dataloader = dict(batch_size=4, num_workers=0)
train_cfg = dict(max_iters=2)
default_hooks = dict(checkpoint=dict(interval=1))
"""
CALIBRATION = f"""
_base_ = ['base.py', '{CONFIGS}/_base_/calibration/simcal.py']
calibration = dict(sampler=dict(classes_per_step=4), max_steps=2, num_workers=0)
"""


@pytest.fixture(scope='module')
def road(tmp_path_factory):
    """Walks the road into a new folder, on data that are generated once; returns the summary and what was said."""
    folder = tmp_path_factory.mktemp('quickstart')
    (folder / 'base.py').write_text(BASE)
    (folder / 'calibrate.py').write_text(CALIBRATION)

    def walk(name: str, seed: int = 0, data: str = 'data') -> tuple[Path, str]:
        console = Console(file=io.StringIO(), width=200)
        configs = folder / 'base.py', folder / 'calibrate.py'
        summary = quickstart(*configs, folder / name, folder / data, seed, console)
        return summary, console.file.getvalue()

    return walk


@pytest.fixture(scope='module')
def walked(road):
    """A road walked without a stop."""
    return road('without_stop')


def are_equal(one: Path, other: Path) -> bool:
    one, other = (read_checkpoint(path)['state_dict'] for path in (one, other))
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def stopped_after(stage, stop_config=lambda config: None):
    def stopped(config, *args):
        stop_config(config)
        stage(config, *args)
        raise KeyboardInterrupt

    return stopped


@pytest.mark.slow
def test_summary_holds_every_figure_of_the_table(walked):
    summary_file, said = walked
    summary = json.loads(summary_file.read_text())
    printed = [line.strip('| ').split('|') for line in (summary_file.parent / 'table.md').read_text().splitlines()[2:]]
    rows = {(cells[0].strip(), cells[1].strip(' *').replace('−', '-')): cells[2:] for cells in printed}
    kept = {(kind, setting): row for kind, of_kind in summary['table'].items() for setting, row in of_kind.items()}
    assert rows.keys() == kept.keys() and len(kept) == 8
    for name, cells in rows.items():
        for cell, figure in zip(cells, kept[name].values(), strict=True):
            text = cell.strip(' *').replace('−', '-')
            assert (text == '-') == (figure is None)
            assert figure is None or float(text) == pytest.approx(figure, abs=0.0501)
    assert set(summary['seconds']) == {'generate', 'train', 'calibrate', 'test'}
    assert len(summary['classes']) == 60 and set(summary['classes'][0]['mask']) == {'base', 'calibrated', 'dual'}
    for name in ('plot.png', 'sheet.jpg', 'table.md', 'summary.json'):
        assert (summary_file.parent / name).stat().st_size > 0 and name in said


@pytest.mark.slow
def test_finished_road_is_not_walked_again(walked, road, monkeypatch):
    for name in ('generate_glyph_lt', 'train', 'calibrate', 'test'):
        monkeypatch.setattr(module, name, lambda *args, name=name, **kwargs: pytest.fail(f'{name} again'))
    summary, said = road('without_stop')
    assert summary == walked[0] and said.count('finished before') == 4


@pytest.mark.slow
def test_stopped_road_goes_on_to_the_same_end(walked, road, monkeypatch):
    with monkeypatch.context() as patch:
        after_one_step = stopped_after(module.train, lambda config: config.train_cfg.update(max_iters=1))
        patch.setattr(module, 'train', after_one_step)
        with pytest.raises(KeyboardInterrupt):
            road('stopped')
    summary, said = road('stopped')
    assert '2/4 train' in said and 'going on' in said
    assert are_equal(summary.parent / 'calibrated/calibrated.pth', walked[0].parent / 'calibrated/calibrated.pth')


def test_stopped_generation_ends_in_the_same_data(walked, road, monkeypatch):
    def stopped(out_dir, on_image, **generation):
        def paint_or_stop():
            on_image()
            if len(list(out_dir.rglob('*.jpg'))) == 5:
                raise KeyboardInterrupt

        return generate_glyph_lt(out_dir, on_image=paint_or_stop, **generation)

    with monkeypatch.context() as patch:
        patch.setattr(module, 'generate_glyph_lt', stopped)
        with pytest.raises(KeyboardInterrupt):
            road('half_generated', data='half')
    straight = walked[0].parent.parent / 'data'
    half = straight.with_name('half')
    assert len(list(half.rglob('*.jpg'))) == 5 and not json.loads((half / 'stage.json').read_text())['finished']
    monkeypatch.setattr(module, 'train', stopped_after(lambda config: None))
    with pytest.raises(KeyboardInterrupt):
        road('half_generated', data='half')
    names = sorted(path.relative_to(straight) for path in straight.rglob('*.*') if path.name != 'stage.json')
    assert len(names) == 22 and all((half / name).read_bytes() == (straight / name).read_bytes() for name in names)
    assert json.loads((half / 'stage.json').read_text())['finished']


@pytest.mark.parametrize(
    ('option', 'variant', 'classes'),
    [((), 'quickstart', 60), (('--full',), 'glyph_lt', 60), (('--smoke',), 'quickstart_smoke', 60),
     (('--classes-400',), 'glyph_lt400', 400)],
)  # fmt: skip
def test_the_tool_walks_the_road_that_is_asked_for(monkeypatch, option, variant, classes):
    spec = importlib.util.spec_from_file_location('quickstart_tool', CONFIGS.parent / 'tools/quickstart.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    walks = []
    monkeypatch.setattr(tool, 'quickstart', lambda *arguments: walks.append(arguments))
    monkeypatch.setattr(sys, 'argv', ['quickstart.py', '--seed', '3', *option])
    tool.main()
    [(base, calibration, work_dir, data_root, seed)] = walks
    assert (work_dir, data_root, seed) == (Path('work_dirs', variant, 'seed_3'), None, 3)
    assert load_config(base).generation['classes'] == classes == load_config(calibration).generation['classes']


@pytest.mark.slow
def test_another_seed_is_another_detector(walked, road, monkeypatch):
    monkeypatch.setattr(module, 'train', stopped_after(module.train))
    with pytest.raises(KeyboardInterrupt):
        road('seed_1', seed=1)
    trained = walked[0].parent / 'base/iter_2.pth'
    assert not are_equal(trained, trained.parents[2] / 'seed_1/base/iter_2.pth')
