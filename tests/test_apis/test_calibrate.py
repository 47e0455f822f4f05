"""Calibration from a checkpoint to a checkpoint."""
import importlib
import re

import pytest
import torch
from mmengine.hooks import EMAHook

from mmdet import apis
from mmdet.calibration import build_calibrator
from mmdet.engine import CpuAmpOptimWrapper, Runner, read_checkpoint, save_checkpoint
from mmdet.errors import CheckpointError, ConfigError
from mmdet.registry import DATASETS

from . import tiny

module = importlib.import_module('mmdet.apis.calibrate')  # of the same name as the function


def config_for(glyphs, work_dir, **changes):
    config = tiny.tiny_config(glyphs, work_dir, 'quickstart/calibrate.py', **changes)
    config.randomness = dict(seed=3)
    return config


def split_state(path) -> tuple[dict, dict]:
    """A calibrated checkpoint's base and calibrator parameters."""
    state = read_checkpoint(path)['state_dict']
    calibrator = {name: value for name, value in state.items() if name.startswith('roi_head.calibrator.')}
    return {name: value for name, value in state.items() if name not in calibrator}, calibrator


def assert_equal_states(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.slow
@pytest.mark.parametrize('head', ['2fc_rand', '3fc_rand', '3fc_ft'])
def test_the_base_stays_bit_identical_and_the_calibrator_learns(glyphs, checkpoints, tmp_path, head):
    result = apis.calibrate(config_for(glyphs, tmp_path, calibration__calibrator__head=head), checkpoints / 'base.pth')
    assert result == tmp_path / 'calibrated.pth'
    base, calibrator = split_state(result)
    trained = read_checkpoint(checkpoints / 'base.pth')['state_dict']
    assert any(name.endswith('running_mean') for name in base)
    assert_equal_states(base, dict(trained))
    if head == '3fc_ft':
        weight = calibrator['roi_head.calibrator.heads.0.path.fc_cls.weight']
        assert not torch.equal(weight, trained['roi_head.bbox_head.fc_cls.weight'])


@pytest.mark.slow
def test_the_checkpoint_needs_no_training_annotations(glyphs, checkpoints, tmp_path):
    config = config_for(glyphs, tmp_path)
    result = apis.calibrate(config, checkpoints / 'base.pth')
    meta = read_checkpoint(result)['meta']
    frequency = DATASETS.build(config.train_dataloader.dataset).class_frequency()
    assert meta['class_frequency'] == frequency.to_dict()
    assert meta['calibrator']['type'] == 'SimCal'
    config.train_dataloader.dataset.ann_file = 'annotations/gone.json'
    figures = apis.test(config, result, scores=['base', 'calibrated', 'dual', 'average'])
    assert list(figures) == ['base', 'calibrated', 'dual', 'average']
    assert all('lvis/segm_AP1' in of_setting for of_setting in figures.values())


@pytest.mark.slow
def test_a_resumed_calibration_is_the_uninterrupted_one(glyphs, checkpoints, tmp_path):
    base = checkpoints / 'base.pth'
    straight = apis.calibrate(config_for(glyphs, tmp_path / 'straight', calibration__max_steps=4), base)
    apis.calibrate(config_for(glyphs, tmp_path / 'resumed', calibration__max_steps=2), base)
    config = config_for(glyphs, tmp_path / 'resumed', calibration__max_steps=4)
    config.resume = 'auto'
    resumed = apis.calibrate(config, base)
    assert_equal_states(split_state(resumed)[1], split_state(straight)[1])


@pytest.mark.slow
def test_a_calibration_of_another_base_is_not_resumed(glyphs, checkpoints, tmp_path):
    apis.calibrate(config_for(glyphs, tmp_path, calibration__max_steps=1), checkpoints / 'base.pth')
    other = read_checkpoint(checkpoints / 'base.pth')
    other['state_dict']['roi_head.bbox_head.fc_cls.bias'] += 1
    save_checkpoint(other, tmp_path / 'other.pth')
    config = config_for(glyphs, tmp_path)
    config.resume = 'auto'
    with pytest.raises(CheckpointError, match='calibrated from another base; start in another --work-dir'):
        apis.calibrate(config, tmp_path / 'other.pth')


def initial_weights(glyphs, base, monkeypatch, work_dir, seed, resume=False):
    """What a calibration starts from, and the seed it is said to have."""
    started = {}

    def build(*arguments):
        calibrator = build_calibrator(*arguments)
        started.update({name: value.clone() for name, value in calibrator.state_dict().items()})
        return calibrator

    monkeypatch.setattr(module, 'build_calibrator', build)
    config = config_for(glyphs, work_dir, calibration__calibrator__head='2fc_rand', calibration__max_steps=1)
    config.randomness, config.resume = dict(seed=seed), resume
    return started, read_checkpoint(apis.calibrate(config, base))['meta']['seed']


@pytest.mark.slow
def test_random_heads_follow_the_seed(glyphs, checkpoints, tmp_path, monkeypatch):
    def start(name, seed, resume=False):
        return initial_weights(glyphs, checkpoints / 'base.pth', monkeypatch, tmp_path / name, seed, resume)

    first, _ = start('first', 3)
    torch.rand(7)
    again, _ = start('again', 3)
    assert_equal_states(first, again)
    other, _ = start('other', 4)
    assert not torch.equal(first['heads.0.1.weight'], other['heads.0.1.weight'])
    drawn, seed = start('drawn', None)
    repeated, _ = start('repeated', seed)
    assert_equal_states(drawn, repeated)
    assert start('drawn', None, resume='auto')[1] == seed


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(max_step=3), 'calibration: the key `max_step` is not known; did you mean `max_steps`?'),
        (dict(calibrator=None), 'the key `calibration.calibrator` is missing'),
        (dict(optim_wrapper=None), 'the key `calibration.optim_wrapper` is missing'),
        (dict(max_steps=0), 'calibration.max_steps=0: give a number of steps from 1'),
        (dict(sampler=dict(type='BiLevelSampler', classes_per_step=0)), 'calibration.sampler.classes_per_step=0'),
    ],
)
def test_mistakes_below_calibration(glyphs, checkpoints, tmp_path, changes, message):
    config = config_for(glyphs, tmp_path)
    config.calibration.update(changes)
    with pytest.raises(ConfigError, match=re.escape(message)):
        apis.calibrate(config, checkpoints / 'base.pth')


@pytest.mark.slow
def test_defaults_hooks_and_mixed_precision(glyphs, checkpoints, tmp_path, monkeypatch):
    config = config_for(glyphs, tmp_path, calibration__max_steps=1)
    config.calibration.pop('num_workers')
    config.calibration.pop('param_scheduler')
    config.calibration.sampler = dict(type='BiLevelSampler')
    config.calibration.optim_wrapper.type = 'AmpOptimWrapper'
    config.custom_hooks = [dict(type='EmptyCacheHook', after_iter=True)]
    config.visualizer = dict(type='Visualizer', name='calibration', vis_backends=[dict(type='LocalVisBackend')])
    runners = []
    monkeypatch.setattr(module, 'Runner', lambda **settings: runners.append(Runner(**settings)) or runners[0])
    apis.calibrate(config, checkpoints / 'base.pth')
    assert runners[0].train_dataloader.batch_size == 16 and runners[0].train_dataloader.num_workers == 0
    assert any(type(hook).__name__ == 'EmptyCacheHook' for hook in runners[0].hooks)
    assert runners[0].visualizer.instance_name == 'calibration'
    assert isinstance(runners[0].optim_wrapper, CpuAmpOptimWrapper) or torch.cuda.is_available()


def test_the_bases_averaging_of_weights_is_not_the_calibrators(glyphs, checkpoints, tmp_path):
    plain = apis.calibrate(config_for(glyphs, tmp_path / 'plain'), checkpoints / 'base.pth')
    config = config_for(glyphs, tmp_path / 'averaged')
    config.custom_hooks = [dict(type='EMAHook'), dict(type='mmengine.EMAHook', ema_type='ExpMomentumEMA')]
    result = apis.calibrate(config, checkpoints / 'base.pth')
    assert_equal_states(split_state(result)[1], split_state(plain)[1])
    assert 'ema_state_dict' not in torch.load(result, weights_only=True)
    assert module._averages(EMAHook()) and module._averages(dict(type=type('OwnEMAHook', (EMAHook,), {})))
    assert not module._averages(dict(type='EmptyCacheHook')) and not module._averages(dict(type='NoSuchHook'))


def test_a_config_without_a_calibration_is_refused(glyphs, checkpoints, tmp_path):
    config = tiny.tiny_config(glyphs, tmp_path)
    config.pop('calibration')
    with pytest.raises(ConfigError, match='calibration'):
        apis.calibrate(config, checkpoints / 'base.pth')


def test_a_checkpoint_of_other_classes_is_refused(glyphs, checkpoints, tmp_path):
    foreign = read_checkpoint(checkpoints / 'base.pth')
    foreign['meta']['dataset_meta']['category_ids'] = [99, *foreign['meta']['dataset_meta']['category_ids'][1:]]
    save_checkpoint(foreign, tmp_path / 'foreign.pth')
    with pytest.raises(CheckpointError, match='foreign.pth: .*label 0 is category 99') as error:
        apis.calibrate(config_for(glyphs, tmp_path), tmp_path / 'foreign.pth')
    assert '\n' not in str(error.value)


def test_a_negative_threshold_is_refused(glyphs, checkpoints, tmp_path):
    with pytest.raises(ConfigError, match='threshold=-1'):
        apis.calibrate(config_for(glyphs, tmp_path, calibration__calibrator__threshold=-1), checkpoints / 'base.pth')
