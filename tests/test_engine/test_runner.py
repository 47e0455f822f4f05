"""The runner: exact resumption, what checkpoints hold, data parallelism on CPUs, progress."""
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import MMLogger

from mmdet.datasets.samplers import DefaultSampler
from mmdet.engine import Runner, latest_checkpoint, read_checkpoint
from mmdet.engine.runner import class_frequency
from mmdet.errors import CheckpointError, ConfigError
from mmdet.structures import ClassFrequency

from . import toy


def train(work_dir, *args, **kwargs):
    runner = Runner.from_cfg(toy.toy_config(work_dir, *args, **kwargs))
    runner.train()
    return runner


def same_weights(a, b):
    weights = [read_checkpoint(latest_checkpoint(work_dir))['state_dict'] for work_dir in (a, b)]
    assert weights[0].keys() == weights[1].keys()
    return all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize('by_epoch', [False, True])
def test_resumed_training_is_the_uninterrupted_one(tmp_path, by_epoch):
    train(tmp_path / 'straight', 6, by_epoch)
    train(tmp_path / 'stopped', 3, by_epoch)
    assert not same_weights(tmp_path / 'straight', tmp_path / 'stopped')
    torch.manual_seed(12345)
    train(tmp_path / 'stopped', 6, by_epoch, resume='auto')
    assert same_weights(tmp_path / 'straight', tmp_path / 'stopped')


@pytest.mark.slow
def test_two_processes_resume_exactly(tmp_path, free_port):
    common = dict(WORLD_SIZE='2', LOCAL_WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port))
    ranks = [
        subprocess.Popen(
            [sys.executable, toy.__file__, str(tmp_path)],
            env=os.environ | common | dict(RANK=str(rank), LOCAL_RANK=str(rank)),
        )
        for rank in range(2)
    ]
    assert [rank.wait(timeout=600) for rank in ranks] == [0, 0]
    assert same_weights(tmp_path / 'straight', tmp_path / 'stopped')
    train(tmp_path / 'alone', 5, batch_size=8)
    assert not same_weights(tmp_path / 'straight', tmp_path / 'alone')


SCHEDULES = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=5),
    dict(type='MultiStepLR', by_epoch=True, milestones=[2, 5], gamma=0.5, end=6),
    dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True, T_max=6, eta_min=0.01, end=6),
    dict(type='StepMomentum', by_epoch=True, step_size=4, gamma=0.9, end=6),
]


class Record(Hook):
    """What a training step is taken with."""

    def __init__(self):
        self.steps = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        group = runner.optim_wrapper.param_groups[0]
        self.steps.append((runner.epoch, runner.iter, group['lr'], group['momentum'], len(data_batch['inputs'])))


def trained_steps(work_dir, epochs, batch_size, **changes):
    """The steps of a run, and its log."""
    settings = dict(param_scheduler=SCHEDULES, auto_scale_lr=dict(enable=True, base_batch_size=4)) | changes
    runner, record = Runner.from_cfg(toy.toy_config(work_dir, epochs, True, batch_size, **settings)), Record()
    runner.register_hook(record)
    runner.train()
    return record.steps, max(work_dir.glob('*/*.log'), key=lambda path: path.stat().st_mtime_ns).read_text()


@pytest.mark.parametrize(('before', 'after'), [(4, 8), (4, 5), (8, 2), (24, 4)])
@pytest.mark.parametrize('says_its_length', [True, False])
def test_epochs_of_another_length_are_resumed_as_if_all_had_been_so(tmp_path, before, after, says_its_length):
    trained_steps(tmp_path / 'stopped', 3, before)
    latest = latest_checkpoint(tmp_path / 'stopped')
    checkpoint = torch.load(latest, weights_only=True)
    assert checkpoint['meta']['epoch_length'] == 24 // before
    if not says_its_length:
        del checkpoint['meta']['epoch_length']
        torch.save(checkpoint, latest)
    expected, _ = trained_steps(tmp_path / 'straight', 6, after)
    steps, log = trained_steps(tmp_path / 'stopped', 6, after, resume='auto')
    np.testing.assert_allclose(steps, [step for step in expected if step[0] >= 3])
    length = math.ceil(24 / after)
    assert log.count(f'not of {length} iterations an epoch: the remaining 3 epochs are trained with schedules of') == 1
    meta = read_checkpoint(latest_checkpoint(tmp_path / 'stopped'))['meta']
    assert (meta['epoch'], meta['iter'], meta['epoch_length']) == (6, 6 * length, length)


def test_a_resumed_run_of_as_many_iterations_an_epoch_is_not_rescaled(tmp_path):
    expected, _ = trained_steps(tmp_path / 'straight', 4, 4)
    trained_steps(tmp_path / 'stopped', 2, 4)
    steps, log = trained_steps(tmp_path / 'stopped', 4, 4, resume='auto')
    assert steps == expected[12:] and 'schedules of that length' not in log
    assert same_weights(tmp_path / 'straight', tmp_path / 'stopped')


def test_schedules_by_figures_are_not_rescaled(tmp_path):
    schedules = [dict(type='ReduceOnPlateauLR', by_epoch=True, monitor='toy/bbox_AP', rule='greater')]
    trained_steps(tmp_path, 2, 4, param_scheduler=schedules)
    with pytest.raises(CheckpointError, match='epoch_2.pth is of a run with other processes or another batch') as error:
        trained_steps(tmp_path, 4, 8, param_scheduler=schedules, resume='auto')
    assert 'ReduceOnPlateauLR cannot be rescaled; resume with' in str(error.value) and '\n' not in str(error.value)


def test_resume_loads_none_of_the_data_already_seen(tmp_path, monkeypatch):
    train(tmp_path, 5)
    seen = []
    item = toy.ToyDataset.__getitem__
    monkeypatch.setattr(toy.ToyDataset, '__getitem__', lambda self, draw: seen.append(draw.number) or item(self, draw))
    train(tmp_path, 6, resume='auto')
    assert seen == [20, 21, 22, 23]


def test_resume_after_the_directory_moved(tmp_path):
    train(tmp_path / 'old', 2)
    (tmp_path / 'old').rename(tmp_path / 'new')
    assert train(tmp_path / 'new', 3, resume='auto').iter == 3


def test_resume_with_nothing_to_resume_starts(tmp_path):
    assert train(tmp_path, 1, resume='auto').iter == 1


def test_resume_takes_over_the_seed(tmp_path):
    train(tmp_path, 1)
    assert train(tmp_path, 2, resume='auto', randomness=dict(seed=None)).seed == 3


def test_resume_with_another_seed_is_refused(tmp_path):
    train(tmp_path, 1)
    with pytest.raises(ConfigError, match='seed 3.*seed 4.*--seed 3'):
        train(tmp_path, 2, resume='auto', randomness=dict(seed=4))


def test_resume_needs_a_training_state(tmp_path):
    torch.save(toy.ToyModel().state_dict(), tmp_path / 'weights.pth')
    with pytest.raises(CheckpointError, match='weights.pth.*cannot be resumed.*load_from'):
        train(tmp_path, 2, resume=str(tmp_path / 'weights.pth'))


def test_resume_with_other_schedules_is_refused(tmp_path):
    train(tmp_path, 1)
    with pytest.raises(CheckpointError, match='another optim_wrapper or param_scheduler'):
        train(tmp_path, 2, resume='auto', param_scheduler=None)


def test_load_from_starts_with_what_fits(tmp_path):
    train(tmp_path / 'a', 2)
    trained = latest_checkpoint(tmp_path / 'a')
    runner = Runner.from_cfg(toy.toy_config(tmp_path / 'b', model=dict(type='ToyModel', num_classes=5)))
    runner.load_checkpoint(str(trained))
    weights = read_checkpoint(trained)['state_dict']
    assert torch.equal(runner.model.layers[0].weight, weights['layers.0.weight'])
    assert runner.model.classifier.weight.shape == (5, 8)


def test_checkpoint_says_what_a_test_needs(tmp_path):
    runner = Runner.from_cfg(toy.toy_config(tmp_path, 2))
    runner.checkpoint_meta['calibrator'] = dict(type='SimCal')
    runner.train()
    meta = torch.load(latest_checkpoint(tmp_path), weights_only=True)['meta']
    assert meta['dataset_meta'] == dict(classes=['cat', 'dog', 'axolotl'], category_ids=[1, 2, 7])
    assert ClassFrequency.from_dict(meta['class_frequency']) == toy.ToyDataset().class_frequency()
    assert (meta['seed'], meta['iter'], meta['calibrator']) == (3, 2, dict(type='SimCal'))
    assert 'ToyModel' in meta['cfg']


def test_data_sets_that_are_built_are_not_copied():
    dataset = toy.ToyDataset()
    sampler = DefaultSampler(dataset, seed=0)
    loader = Runner.build_dataloader(dict(dataset=dataset, sampler=sampler, batch_size=2), seed=0)
    assert loader.dataset is dataset and loader.sampler is sampler


def test_class_frequency_of_a_wrapped_data_set():
    wrapper = type('Wrapper', (), dict(dataset=toy.ToyDataset()))()
    assert class_frequency(wrapper).instance_count.tolist() == [80, 20, 1]
    assert class_frequency(object()) is None


def test_old_checkpoints_go_and_no_other_file_stays(tmp_path):
    train(tmp_path, 5)
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == ['iter_4.pth', 'iter_5.pth']
    assert not list(tmp_path.glob('.*'))


def test_old_checkpoint_stays_where_the_new_one_cannot_be_written(tmp_path, monkeypatch):
    hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=False, max_keep_ckpts=1))
    train(tmp_path, 2, default_hooks=hooks)

    def full_disk(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(torch, 'save', full_disk)
    with pytest.raises(CheckpointError, match='iter_3.pth.*No space left'):
        train(tmp_path, 3, default_hooks=hooks, resume='auto')
    assert [path.name for path in tmp_path.glob('*.pth')] == ['iter_2.pth']
    assert latest_checkpoint(tmp_path) == tmp_path / 'iter_2.pth'


def test_best_checkpoint_by_ap(tmp_path):
    checkpoint = dict(type='CheckpointHook', interval=1, by_epoch=False, save_best='toy/bbox_AP')
    loader = toy.toy_config(tmp_path).train_dataloader.to_dict()
    loader['sampler'] = dict(type='DefaultSampler', shuffle=False)
    runner = train(
        tmp_path,
        2,
        default_hooks=dict(checkpoint=checkpoint),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=2, val_interval=1),
        val_cfg=dict(type='ValLoop'),
        val_dataloader=loader,
        val_evaluator=dict(type='ToyMetric'),
    )
    assert len(list(tmp_path.glob('best_toy_bbox_AP_iter_*.pth'))) == 1
    assert runner.message_hub.get_info('best_score') > 0


def test_amp_on_a_cpu_is_bfloat16(tmp_path, monkeypatch):
    from mmdet.engine import mixed_precision

    if torch.cuda.is_available():
        pytest.skip('this machine has CUDA, where float16 is used')
    seen = []
    forward = toy.ToyModel.forward
    monkeypatch.setattr(
        toy.ToyModel,
        'forward',
        lambda self, *a, **k: seen.append(torch.get_autocast_dtype('cpu')) or forward(self, *a, **k),
    )
    wrapper = mixed_precision(dict(type='AmpOptimWrapper', loss_scale='dynamic', optimizer=dict(type='SGD', lr=0.1)))
    train(tmp_path, 1, optim_wrapper=wrapper)
    assert seen == [torch.bfloat16]
    with pytest.raises(ConfigError, match='OptimWrapperDict'):
        mixed_precision(dict(type='OptimWrapperDict'))


def test_terminal_shows_progress_and_no_noise(tmp_path, capfd):
    train(tmp_path, 4, default_hooks=dict(logger=dict(type='LoggerHook', interval=1)))
    out, err = capfd.readouterr()
    assert out == ''
    assert err.splitlines()[-1].startswith('train 4/4  ETA 0:00:00  loss ')
    assert len(err.splitlines()) <= 3
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'System environment' in log
    assert '"loss": ' in next(tmp_path.glob('*/vis_data/scalars.json')).read_text()


def test_runs_within_a_second_have_logs_of_their_own(tmp_path):
    names = {Runner.from_cfg(toy.toy_config(tmp_path)).experiment_name for _ in range(3)}
    assert len(names) == 3
    assert names <= set(MMLogger._instance_dict)


def test_log_dirs_hold_the_config(tmp_path):
    train(tmp_path, 1)
    assert any('ToyModel' in Path(file).read_text() for file in tmp_path.glob('*.py'))
