"""Calibrators side by side on one frozen detector."""
import csv
import importlib
import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from mmdet import apis
from mmdet.apis import seen_images
from mmdet.apis.compare import compare
from mmdet.apis.comparison import with_choices
from mmdet.apis.comparison_report import Winner, _Figures
from mmdet.datasets import CocoDataset
from mmdet.engine import load_config, read_checkpoint
from mmdet.errors import ConfigError

from . import tiny

module = importlib.import_module('mmdet.apis.compare')
EXTENSION = Path(__file__).parent / 'extension'
TOOL = Path(__file__).resolve().parents[2] / 'tools/compare.py'
SHORT = """_base_ = '{base}'
calibration = dict(sampler=dict({size}=4), max_steps=3, num_workers=0)
"""


@pytest.fixture(scope='module')
def recipes(tmp_path_factory):
    """Published calibrations in three steps, by name."""
    folder = tmp_path_factory.mktemp('recipes')
    files = {}
    for name, size in (('simcal', 'classes_per_step'), ('bags', 'images_per_step'), ('logn', 'images_per_step')):
        files[name] = folder / f'{name}.py'
        base = tiny.CONFIGS / f'_base_/calibration/{name}.py'
        files[name].write_text(SHORT.format(base=base, size=size))
    files['norcal_on_simcal'] = folder / 'norcal_on_simcal.py'
    files['norcal_on_simcal'].write_text(
        f"_base_ = '{files['simcal']}'\n"
        "calibration = dict(choices={'gamma': [0.3, 0.6]}, calibrator=dict(_delete_=True, type='NorCal', gamma=0.3, "
        "on=dict(type='SimCal', threshold=30), on_scores='calibrated'))\n"
    )
    return {name: str(file) for name, file in files.items()}


def config_for(glyphs, work_dir):
    return tiny.tiny_config(
        glyphs,
        work_dir,
        'quickstart/base.py',
        model__test_cfg__rcnn__score_thr=0.0,
        model__test_cfg__rcnn__max_per_img=300,
    )


def lines_of(folder) -> dict:
    """The lines of `comparison.json` by what they are of."""
    lines = json.loads((folder / 'comparison.json').read_text())['lines']
    return {(line['entry'], line['setting'], line['how']): line for line in lines}


@pytest.fixture(scope='module')
def compared(glyphs, checkpoints, recipes, tmp_path_factory):
    """A comparison of two seeds, in its work dir."""
    work_dir = tmp_path_factory.mktemp('compared')
    names = [*recipes.values(), 'norcal', 'fracal', 'tau_norm']
    folder = compare(config_for(glyphs, work_dir), checkpoints / 'base.pth', names, seeds=(0, 1))
    assert folder == work_dir / 'compare'
    return work_dir


def test_the_detectors_own_figures_are_those_of_a_test(glyphs, checkpoints, compared, tmp_path):
    line = lines_of(compared / 'compare')['base', 'base', '']
    figures = apis.test(config_for(glyphs, tmp_path), checkpoints / 'base.pth')['base']
    for kind in ('segm', 'bbox'):
        for name in ('AP', 'APr', 'APc', 'APf', 'AP1', 'AP2', 'bAP'):
            expected = figures[f'lvis/{kind}_{name}']
            (ours,) = line['figures'][f'{kind}_{name}']
            known = not np.isnan(expected) and expected >= 0
            assert ours == pytest.approx(100 * expected, abs=1e-9) if known else ours is None


@pytest.mark.parametrize('setting', ['dual', 'calibrated', 'average'])
def test_a_trained_calibrators_figures_are_those_of_its_checkpoint(glyphs, compared, tmp_path, setting):
    line = lines_of(compared / 'compare')['simcal', setting, 'published']
    assert line['seeds'] == [0, 1] and line['parameters'] > 0 and line['seconds'] > 0
    for place, seed in enumerate(line['seeds']):
        (folder,) = compared.glob(f'calibrations/SimCal_*_seed_{seed}')
        meta = read_checkpoint(folder / 'calibrated.pth')['meta']
        assert meta['seed'] == seed and meta['calibrator'] == dict(type='SimCal', head='3fc_ft')
        figures = apis.test(config_for(glyphs, tmp_path), folder / 'calibrated.pth', scores=[setting])[setting]
        assert line['figures']['segm_AP'][place] == pytest.approx(100 * figures['lvis/segm_AP'], abs=1e-9)


def test_one_training_serves_all_that_build_on_it(compared):
    names = sorted(folder.name.split('_')[0] for folder in (compared / 'calibrations').iterdir())
    assert names == ['BAGS', 'BAGS', 'LogN', 'LogN', 'SimCal', 'SimCal']


def test_every_line_is_in_the_table_and_in_the_csv(compared):
    lines = lines_of(compared / 'compare')
    assert {how for *_, how in lines} == {'', 'published', 'chosen'}
    assert ('best of all', '', 'chosen') in lines and ('norcal', 'calibrated', 'chosen') in lines
    assert ('bags', 'calibrated', 'chosen') not in lines  # there is nothing to choose
    table = (compared / 'compare/table.md').read_text()
    assert len([line for line in table.splitlines() if line.startswith('| ')]) == len(lines) + 2
    with open(compared / 'compare/figures.csv') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(line['seeds']) for line in lines.values())
    (published,) = [row for row in rows if (row['calibrator'], row['how']) == ('norcal', 'published')]
    (figure,) = lines['norcal', 'calibrated', 'published']['figures']['segm_AP']
    assert float(published['segm_AP']) == pytest.approx(figure, abs=1e-3)
    assert float(published['AP gain from']) <= float(published['AP gain to'])
    assert (compared / 'compare/pareto.png').stat().st_size > 10_000


def test_choices_are_made_on_one_half_and_judged_on_the_other(glyphs, checkpoints, tmp_path, monkeypatch):
    """By hand: figures of every gamma on each half alone, and who scores which half."""
    seen = {}
    judge = module._judge

    def spy(detector, candidates, contenders, tested, detections):
        seen.update(candidates=candidates, contenders=contenders)
        return judge(detector, candidates, contenders, tested, detections)

    precisions = module._precisions
    monkeypatch.setattr(module, '_judge', spy)
    monkeypatch.setattr(module, '_precisions', lambda *all: seen.setdefault('precisions', precisions(*all)))
    compare(config_for(glyphs, tmp_path), checkpoints / 'base.pth', ['norcal'])
    gammas = [candidate.values.get('gamma') for candidate in seen['candidates']]
    assert gammas[:2] == [None, 0.6] and len(set(gammas)) == 9
    (chosen,) = [line for line in seen['contenders'] if (line.entry, line.how) == ('norcal', 'chosen')]
    for half in (0, 1):
        other = seen['precisions'][1:, 1 - half]
        assert other[chosen.by_seed[None][half] - 1] == other.max()
    assert sorted(module._folds(4).tolist()) == [0, 0, 1, 1]


def test_halves_that_choose_differently_give_their_mean_gain(glyphs, checkpoints, tmp_path, monkeypatch):
    """By hand, from the tables of matched detections."""
    seen = []
    monkeypatch.setattr(module, 'report', lambda comparison, folder: seen.append(comparison))
    monkeypatch.setattr(module, '_chosen', lambda numbers, precisions: (numbers[0], numbers[-1]))
    compare(config_for(glyphs, tmp_path), checkpoints / 'base.pth', ['norcal'])
    (comparison,) = seen
    (line,) = [line for line in comparison.contenders if (line.entry, line.how) == ('norcal', 'chosen')]
    first, second = line.by_seed[None]
    assert first != second

    def ap(number, weights=None):
        table = comparison.judged[number].tables['segm']
        return 100 * np.nanmean(table.average_precision(weights))

    halves = [(comparison.folds == half).astype(np.int64) for half in (0, 1)]
    gains = [ap(number, half) - ap(0, half) for number, half in zip((first, second), halves, strict=True)]
    figures = _Figures(comparison)
    assert figures.pair(first, second)['segm_AP'] == pytest.approx(ap(0) + sum(gains) / 2)
    assert figures.pair(first, first)['segm_AP'] == pytest.approx(ap(first))
    low, high = figures.intervals(first, second)['AP']
    assert low <= high


def test_choices_can_be_made_on_other_data(glyphs, checkpoints, tmp_path):
    config = config_for(glyphs, tmp_path)
    config.val_dataloader, config.val_evaluator = config.test_dataloader, config.test_evaluator
    folder = compare(config, checkpoints / 'base.pth', ['norcal'], choose_on='val')
    summary = json.loads((folder / 'comparison.json').read_text())
    assert summary['chosen_on'] == 'val_dataloader'
    lines = lines_of(folder)
    # Chosen and judged on the same data here: nothing published can be better.
    chosen, published = (lines['norcal', 'calibrated', how]['figures']['segm_AP'] for how in ('chosen', 'published'))
    assert chosen >= published
    assert ' / ' not in lines['norcal', 'calibrated', 'chosen']['chosen']


def test_what_is_kept_changes_the_time_and_nothing_else(glyphs, checkpoints, recipes, compared, tmp_path, monkeypatch):
    """A second run trains nothing and loads no image; one that may keep nothing has the same figures."""
    loaded = []
    load = CocoDataset.__getitem__
    monkeypatch.setattr(CocoDataset, '__getitem__', lambda self, draw: loaded.append(draw) or load(self, draw))
    first = lines_of(compared / 'compare')
    names = [recipes['simcal'], recipes['bags'], recipes['logn'], 'norcal', 'temperature']
    again = lines_of(compare(config_for(glyphs, compared), checkpoints / 'base.pth', names, seeds=(0, 1)))
    assert loaded == [] and ('temperature', 'calibrated', 'published') in again
    key = ('simcal', 'dual', 'published')
    assert again[key]['figures'] == first[key]['figures'] and again[key]['seconds'] == first[key]['seconds']
    without = compare(config_for(glyphs, tmp_path), checkpoints / 'base.pth', names[:1], seeds=(0, 1), max_size=0)
    assert loaded and not list((tmp_path / 'seen_images').glob('*'))
    assert lines_of(without)[key]['figures'] == first[key]['figures']


def test_files_of_other_numbers_of_processes_are_others(tmp_path, monkeypatch):
    """Rank 0 of two has images 0, 2, 4, ...: as many as one process has in its first batch."""

    def files(processes, batch_size):
        names = []
        for rank in range(processes):
            monkeypatch.setattr(seen_images, 'get_rank', lambda rank=rank: rank)
            monkeypatch.setattr(seen_images, 'get_world_size', lambda: processes)
            images = seen_images.SeenImages(None, range(24), batch_size, 0, tmp_path, 'test', 1.0)
            assert sorted(index for batch in images.batches for index in batch) == list(range(rank, 24, processes))
            names += [images.file_of(batch).name for batch in images.batches]
        return names

    alone, two, four = files(1, 4), files(2, 4), files(4, 3)
    assert len({*alone, *two, *four}) == len(alone) + len(two) + len(four) == 6 + 6 + 8


def test_the_winners_config_calibrates(glyphs, checkpoints, recipes, tmp_path, monkeypatch):
    """As if the composition had won with another gamma than the published one."""

    def composed(entries, candidates, precisions):
        (entry,) = entries
        (won,) = {candidate.way for candidate in candidates if candidate.values.get('gamma') == 0.6}
        return Winner(won[0], won[1], with_choices(entry.recipe, dict(won[2])))

    monkeypatch.setattr(module, '_winner', composed)
    folder = compare(config_for(glyphs, tmp_path), checkpoints / 'base.pth', [recipes['norcal_on_simcal']])
    config = load_config(folder / 'winner.py', tiny.tiny_options(glyphs, calibration__max_steps=2))
    config.work_dir = str(tmp_path / 'winner')
    result = apis.calibrate(config, checkpoints / 'base.pth')
    calibrator = read_checkpoint(result)['meta']['calibrator']
    assert (calibrator['type'], calibrator['gamma'], calibrator['on']['type']) == ('NorCal', 0.6, 'SimCal')
    assert 'lvis/segm_AP' in apis.test(config, result)['calibrated']


def test_a_calibrator_from_outside_the_package(glyphs, checkpoints, tmp_path, monkeypatch):
    """`custom_imports` of its config, and it calibrates, tests and compares."""
    monkeypatch.syspath_prepend(str(EXTENSION))
    config = config_for(glyphs, tmp_path / 'calibrated')
    config.calibration = load_config(EXTENSION / 'median_count.py').calibration
    result = apis.calibrate(config, checkpoints / 'base.pth')
    figures = apis.test(config, result)['calibrated']
    names = [str(EXTENSION / 'median_count.py')]
    folder = compare(config_for(glyphs, tmp_path / 'compared'), checkpoints / 'base.pth', names)
    (ours,) = lines_of(folder)['median_count', 'calibrated', 'published']['figures']['segm_AP']
    assert ours == pytest.approx(100 * figures['lvis/segm_AP'], abs=1e-9)
    assert 'strength' in lines_of(folder)['median_count', 'calibrated', 'chosen']['chosen']


def test_the_document_shows_that_very_file():
    document = (Path(__file__).resolve().parents[2] / 'docs/extending.md').read_text()
    for name in ('median_calibrator.py', 'median_count.py'):
        assert (EXTENSION / name).read_text() in document


def test_the_tool_prints_the_table(glyphs, checkpoints, tmp_path, monkeypatch, capsys):
    changes = tiny.tiny_options(glyphs, model__test_cfg__rcnn__score_thr=0.0, model__test_cfg__rcnn__max_per_img=300)
    options = [f'{key}={value}' for key, value in changes.items() if not key.startswith('calibration.')]
    arguments = [str(tiny.CONFIGS / 'quickstart/base.py'), str(checkpoints / 'base.pth'), '--calibrators', 'norcal']
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *arguments, '--work-dir', str(tmp_path), '--cfg-options', *options])
    runpy.run_path(str(TOOL), run_name='__main__')
    assert re.search(r'\| norcal \| published \|.* \d+\.\d \|', capsys.readouterr().out)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(calibrators=['norkal']), '--calibrators norkal: is not known; there are acsl, bags'),
        (dict(calibrators=['norcal', 'norcal']), '--calibrators: norcal are named twice'),
        (dict(calibrators=['norcal'], seeds=(1, 1)), '--seeds 1,1: name different seeds'),
        (dict(calibrators=['norcal'], detections=100), "--detections 100: LVIS's protocol looks at 300; give no fewer"),
        (dict(calibrators=['norcal'], choose_on='dev'), 'the key `dev_dataloader` is missing'),
    ],
)
def test_mistakes_are_one_line(glyphs, checkpoints, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        compare(config_for(glyphs, tmp_path), checkpoints / 'base.pth', **settings)
    assert '\n' not in str(error.value)


def test_another_protocol_is_refused(glyphs, checkpoints, tmp_path):
    config = config_for(glyphs, tmp_path)
    config.test_evaluator = dict(type='CocoMetric', ann_file=config.test_evaluator.ann_file, metric='bbox')
    with pytest.raises(ConfigError, match='test_evaluator is to be one LVISMetric'):
        compare(config, checkpoints / 'base.pth', ['norcal'])
    config = config_for(glyphs, tmp_path)
    config.pop('compare')
    with pytest.raises(ConfigError, match='has no compare.calibrators; name calibrators with --calibrators'):
        compare(config, checkpoints / 'base.pth')
