"""Calibration from a feature bank: what it changes (nothing but half precision and views seen again), and its files."""
import errno
import json
import re
from pathlib import Path

import pytest
import torch

from mmdet import apis
from mmdet.apis import feature_bank
from mmdet.calibration import CalibrationModel
from mmdet.datasets import CocoDataset
from mmdet.engine import read_checkpoint, save_checkpoint
from mmdet.errors import ConfigError, UserError

from . import tiny
from .test_cascade import config_for as cascade_config


def config_for(glyphs, work_dir, bank=None, **changes):
    changes = dict(calibration__max_steps=3, calibration__sampler__classes_per_step=4) | changes
    config = tiny.tiny_config(glyphs, work_dir, 'quickstart/calibrate.py', **changes)
    config.randomness = dict(seed=3)
    if bank is not None:
        config.calibration.feature_bank = bank
    return config


def learnt(path) -> dict:
    """A calibrated checkpoint's calibrator."""
    state = read_checkpoint(path)['state_dict']
    return {name: value for name, value in state.items() if name.startswith('roi_head.calibrator.')}


def assert_equal_weights(one, other, tolerance=0.0):
    one, other = learnt(one), learnt(other)
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=tolerance, rtol=0, msg=name)


@pytest.fixture
def steps(monkeypatch):
    """The RoI features and labels that each stage of each step learns from, as they come."""
    seen = []
    learn = CalibrationModel.learn

    def spy(self, feats, selected, keys, stage):
        (of_rois,) = feats.values()
        seen.append((of_rois, selected.labels, selected.num_rois_of_step))
        return learn(self, feats, selected, keys, stage)

    monkeypatch.setattr(CalibrationModel, 'learn', spy)
    return seen


@pytest.fixture
def loaded(monkeypatch):
    """Numbers of the draws whose image is loaded."""
    numbers = []
    load = CocoDataset.__getitem__
    monkeypatch.setattr(CocoDataset, '__getitem__', lambda self, draw: numbers.append(draw.number) or load(self, draw))
    return numbers


def assert_equal_steps(one, other):
    assert len(one) == len(other)
    assert sum(len(labels) for _, labels, _ in one) > 0
    for (feats, labels, count), (other_feats, other_labels, other_count) in zip(one, other, strict=True):
        assert torch.equal(labels, other_labels) and count == other_count
        torch.testing.assert_close(feats, other_feats, atol=2**-24, rtol=2**-11)  # float16's steps


@pytest.mark.slow
def test_with_a_view_for_every_visit_it_is_the_calibration_without_a_bank(glyphs, checkpoints, tmp_path, steps):
    base = checkpoints / 'base.pth'
    without = apis.calibrate(config_for(glyphs, tmp_path / 'without'), base)
    steps_without = list(steps)
    steps.clear()
    with_a_bank = apis.calibrate(config_for(glyphs, tmp_path / 'with', dict(visits_per_view=1)), base)
    assert_equal_steps(steps, steps_without)
    assert_equal_weights(with_a_bank, without, tolerance=1e-4)


@pytest.mark.slow
def test_so_it_is_for_the_stages_of_a_cascade(glyphs, tmp_path, steps):
    def config(name, bank=None):
        config = cascade_config(glyphs, tmp_path / name)
        config.randomness = dict(seed=3)
        config.train_cfg.max_iters = config.default_hooks.checkpoint.interval = 1
        config.calibration.sampler.classes_per_step = 3
        config.calibration.feature_bank = bank
        return config

    apis.train(config('base'))
    base = tmp_path / 'base/iter_1.pth'
    apis.calibrate(config('without'), base)
    steps_without = list(steps)
    steps.clear()
    apis.calibrate(config('with', dict(visits_per_view=1)), base)
    assert len(steps) == 2 * 3
    assert_equal_steps(steps, steps_without)


@pytest.mark.slow
def test_a_bank_that_exists_serves_another_calibration_without_any_image(glyphs, checkpoints, tmp_path, loaded):
    bank = dict(dir=str(tmp_path / 'bank'), visits_per_view=2)
    first = apis.calibrate(config_for(glyphs, tmp_path / 'first', bank), checkpoints / 'base.pth')
    views = len(loaded)
    assert 0 < views < 12 and len(set(loaded)) == views
    second = apis.calibrate(config_for(glyphs, tmp_path / 'second', bank), checkpoints / 'base.pth')
    head = config_for(glyphs, tmp_path / 'third', bank, calibration__calibrator__head='2fc_rand')
    apis.calibrate(head, checkpoints / 'base.pth')
    assert len(loaded) == views
    assert_equal_weights(first, second)
    longer = config_for(glyphs, tmp_path / 'longer', bank, calibration__max_steps=6)
    apis.calibrate(longer, checkpoints / 'base.pth')
    assert views < len(loaded) < 24 and len(set(loaded)) == len(loaded)


@pytest.mark.slow
@pytest.mark.parametrize(('max_size', 'num_workers'), [(0, 0), (0.0012, 1)])
def test_what_does_not_fit_is_computed_and_said(
    glyphs, checkpoints, tmp_path, capfd, steps, max_size, num_workers
):
    base = checkpoints / 'base.pth'
    whole = dict(visits_per_view=2, max_size=1)
    apis.calibrate(config_for(glyphs, tmp_path / 'whole', whole), base)
    steps_of_whole = list(steps)
    steps.clear()
    small = whole | dict(max_size=max_size)
    bounded = config_for(glyphs, tmp_path / 'bounded', small, calibration__num_workers=num_workers)
    capfd.readouterr()
    apis.calibrate(bounded, base)
    printed = capfd.readouterr().err
    assert_equal_steps(steps, steps_of_whole)
    size = sum(file.stat().st_size for file in (tmp_path / 'bounded/feature_bank').glob('*.segment'))
    assert size <= max_size * 1e9 and (size > 0) == (max_size > 0)
    assert re.search(r'feature bank \S+: \d+ views of \d images serve 12 visits; .* at most 0\.\d\d GB', printed)
    assert re.search(rf'max_size={max_size} GB may be too small: .* at least \d+ of \d+, which serve \d+% of', printed)


@pytest.mark.slow
def test_a_resumed_calibration_is_the_uninterrupted_one(glyphs, checkpoints, tmp_path, monkeypatch, steps):
    base, bank = checkpoints / 'base.pth', dict(visits_per_view=2)
    straight = apis.calibrate(config_for(glyphs, tmp_path / 'straight', bank, calibration__max_steps=4), base)
    config = config_for(glyphs, tmp_path / 'resumed', bank, calibration__max_steps=4)
    steps.clear()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        step = CalibrationModel.learn  # `steps` counts them

        def interrupted(self, *arguments):
            if len(steps) == 3:
                raise KeyboardInterrupt
            return step(self, *arguments)

        patch.setattr(CalibrationModel, 'learn', interrupted)
        apis.calibrate(config, base)
    steps.clear()
    config.resume = 'auto'
    assert_equal_weights(apis.calibrate(config, base), straight)
    assert len(steps) == 2


@pytest.mark.slow
def test_an_interrupted_extraction_is_continued(glyphs, checkpoints, tmp_path, monkeypatch, loaded):
    base, bank = checkpoints / 'base.pth', dict(visits_per_view=1)
    monkeypatch.setattr(feature_bank, '_SEGMENT_BYTES', 1)
    straight = apis.calibrate(config_for(glyphs, tmp_path / 'straight', bank), base)
    loaded.clear()
    load = CocoDataset.__getitem__

    def interrupted(self, draw):
        if draw.number == 6:
            raise KeyboardInterrupt
        return load(self, draw)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CocoDataset, '__getitem__', interrupted)
        apis.calibrate(config_for(glyphs, tmp_path / 'interrupted', bank), base)
    kept = [number for number in loaded if number < 4]  # the second batch of four was not finished
    loaded.clear()
    continued = apis.calibrate(config_for(glyphs, tmp_path / 'interrupted', bank), base)
    assert sorted(kept + loaded) == list(range(12))
    assert_equal_weights(continued, straight)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(glyphs, checkpoints, tmp_path, monkeypatch):
    def full(segment, file):
        file.write(b'half of it')
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr('mmdet.apis.bank_folder.torch.save', full)
    with pytest.raises(UserError, match=r'\.segment: could not be written \(No space left on device\)') as error:
        apis.calibrate(config_for(glyphs, tmp_path, dict()), checkpoints / 'base.pth')
    assert '\n' not in str(error.value)
    assert [file.name for file in (tmp_path / 'feature_bank').iterdir()] == ['feature_bank.json']


def another_base(config, base, tmp_path):
    checkpoint = read_checkpoint(base)
    checkpoint['state_dict']['roi_head.bbox_head.fc_cls.bias'] += 1
    save_checkpoint(checkpoint, tmp_path / 'other.pth')
    return tmp_path / 'other.pth'


def another_pipeline(config, base, tmp_path):
    config.train_dataloader.dataset.pipeline[-2].prob = 0.3
    return base


def another_annotation(config, base, tmp_path):
    source = Path(config.train_dataloader.dataset.data_root, config.train_dataloader.dataset.ann_file)
    annotations = json.loads(source.read_text())
    annotations['annotations'][0]['bbox'][2] += 1
    (tmp_path / source.name).write_text(json.dumps(annotations))
    config.train_dataloader.dataset.ann_file = str(tmp_path / source.name)
    return base


def another_sampler(config, base, tmp_path):
    config.model.train_cfg.rcnn.sampler.num = 32
    return base


def more_draws(config, base, tmp_path):
    config.calibration.feature_bank.draws = 3
    return base


@pytest.mark.slow
@pytest.mark.parametrize(
    ('change', 'what'),
    [
        (another_base, 'base checkpoint'),
        (another_pipeline, 'training data or pipeline'),
        (another_annotation, 'training data or pipeline'),
        (another_sampler, 'model config'),
        (more_draws, 'calibration.feature_bank.draws'),
    ],
)
def test_a_bank_of_something_else_is_refused(glyphs, checkpoints, filled_bank, tmp_path, change, what):
    config = config_for(glyphs, tmp_path, dict(dir=str(filled_bank)), calibration__max_steps=1)
    base = change(config, checkpoints / 'base.pth', tmp_path)
    message = f'{filled_bank}: the feature bank there was made from another {what}; delete that folder'
    with pytest.raises(ConfigError, match=re.escape(message)):
        apis.calibrate(config, base)


@pytest.mark.slow
def test_detection_settings_and_the_calibrator_are_free(glyphs, checkpoints, filled_bank, tmp_path, loaded):
    config = config_for(glyphs, tmp_path, dict(dir=str(filled_bank)), calibration__max_steps=1)
    config.model.test_cfg.rcnn.score_thr = 0.3
    config.calibration.calibrator.threshold = 7
    apis.calibrate(config, checkpoints / 'base.pth')
    assert loaded == []


@pytest.fixture(scope='module')
def filled_bank(glyphs, checkpoints, tmp_path_factory):
    """A bank of one step."""
    folder = tmp_path_factory.mktemp('bank')
    config = config_for(glyphs, folder / 'run', dict(dir=str(folder / 'bank')), calibration__max_steps=1)
    apis.calibrate(config, checkpoints / 'base.pth')
    return folder / 'bank'


@pytest.mark.slow
def test_a_damaged_segment_is_named(glyphs, checkpoints, tmp_path):
    config = config_for(glyphs, tmp_path, dict(), calibration__max_steps=1)
    apis.calibrate(config, checkpoints / 'base.pth')
    (segment,) = (tmp_path / 'feature_bank').glob('*.segment')
    segment.write_bytes(segment.read_bytes()[:-1000])
    with pytest.raises(UserError, match=f'{segment.name}: is damaged; delete it'):
        apis.calibrate(config_for(glyphs, tmp_path, dict(), calibration__max_steps=1), checkpoints / 'base.pth')


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(draw=3), 'calibration.feature_bank: the key `draw` is not known; did you mean `draws`?'),
        (dict(draws=0), 'calibration.feature_bank.draws=0: must be an integer from 1'),
        (dict(visits_per_view=1.5), 'calibration.feature_bank.visits_per_view=1.5: must be an integer from 1'),
        (dict(max_size=-1), 'calibration.feature_bank.max_size=-1: give a size in GB'),
    ],
)
def test_mistakes_in_the_settings(glyphs, checkpoints, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        apis.calibrate(config_for(glyphs, tmp_path, settings), checkpoints / 'base.pth')
