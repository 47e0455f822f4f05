"""Training through the API and the tool, in one process and in two."""
import multiprocessing
import re
import runpy
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from mmdet.apis import train
from mmdet.apis.train import prepare_run, scale_learning_rate
from mmdet.engine import latest_checkpoint, load_config, mixed_precision, read_checkpoint
from mmdet.errors import ConfigError, UserError

from . import tiny

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


def weights_of(folder):
    return read_checkpoint(latest_checkpoint(folder))['state_dict']


@pytest.mark.slow
def test_training_is_reproducible_and_resumes_exactly(glyphs, tmp_path):
    train(tiny.tiny_config(glyphs, tmp_path / 'straight'))
    halfway = tiny.tiny_config(glyphs, tmp_path / 'stopped', default_hooks__checkpoint__interval=1)
    halfway.train_cfg.max_iters = 1
    train(halfway)
    train(tiny.tiny_config(glyphs, tmp_path / 'stopped', resume='auto'))
    straight, resumed = weights_of(tmp_path / 'straight'), weights_of(tmp_path / 'stopped')
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


@pytest.mark.slow
def test_checkpoint_holds_counts_and_classes(glyphs, tmp_path):
    train(tiny.tiny_config(glyphs, tmp_path, train_cfg__max_iters=1))
    meta = torch.load(latest_checkpoint(tmp_path), weights_only=True)['meta']
    assert len(meta['dataset_meta']['category_ids']) == len(meta['class_frequency']['names']) == tiny.NUM_CLASSES


@pytest.mark.slow
def test_bfloat16_on_a_cpu(glyphs, tmp_path):
    config = tiny.tiny_config(glyphs, tmp_path, train_cfg__max_iters=1)
    config.optim_wrapper = mixed_precision(config.optim_wrapper)
    assert train(config).iter == 1


@pytest.mark.slow
def test_learning_rate_scaling_needs_a_base(glyphs, tmp_path):
    with pytest.raises(ConfigError, match='auto_scale_lr.base_batch_size'):
        scale_learning_rate(tiny.tiny_config(glyphs, tmp_path))
    config = tiny.tiny_config(glyphs, tmp_path, auto_scale_lr=dict(base_batch_size=4, enable=False))
    scale_learning_rate(config)
    assert train(config).optim_wrapper.optimizer.param_groups[0]['initial_lr'] == config.optim_wrapper.optimizer.lr / 2


@pytest.mark.slow
@pytest.mark.parametrize('loop', ['IterBasedTrainLoop', 'EpochBasedTrainLoop'])
def test_workers_end_with_the_run_and_need_no_killing(glyphs, tmp_path, monkeypatch, loop):
    workers = []
    start = BaseProcess.start
    monkeypatch.setattr(BaseProcess, 'start', lambda self: workers.append(self) or start(self))
    config = tiny.tiny_config(glyphs, tmp_path, train_dataloader__num_workers=1, test_dataloader__num_workers=1)
    if loop == 'EpochBasedTrainLoop':
        config.train_cfg = dict(type=loop, max_epochs=1)
        config.param_scheduler = None
        config.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)
    runner = train(config)
    runner.test()
    assert [worker.exitcode for worker in workers] == [0, 0]


@pytest.mark.slow
def test_workers_of_a_run_that_failed_end_before_the_next(glyphs, tmp_path, monkeypatch):
    config = tiny.tiny_config(glyphs, tmp_path, train_dataloader__num_workers=1)
    config.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
    config.param_scheduler = None
    config.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr('mmengine.optim.OptimWrapper.update_params', fail)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    prepare_run(config)
    assert not multiprocessing.active_children()


def test_work_dir_that_cannot_be_made(glyphs, tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='file/work: cannot be made .*--work-dir'):
        train(tiny.tiny_config(glyphs, tmp_path / 'file' / 'work'))


@pytest.mark.parametrize('num_classes', [tiny.NUM_CLASSES - 1, tiny.NUM_CLASSES + 1])
@pytest.mark.parametrize('head', ['bbox_head', 'mask_head'])
def test_heads_for_another_number_of_classes(glyphs, tmp_path, head, num_classes):
    config = tiny.tiny_config(glyphs, tmp_path, model__roi_head__mask_head__class_agnostic=False)
    config.model.roi_head[head].num_classes = num_classes
    message = f'model.roi_head.{head}.num_classes is {num_classes}, but the data of train_dataloader has 8 classes'
    with pytest.raises(ConfigError, match=message):
        train(config)


@pytest.mark.parametrize('seed', [-1, 2**32, 'one'])
def test_seed_out_of_range(tmp_path, seed):
    config = load_config(tiny.CONFIGS / 'quickstart/base.py', dict(randomness=dict(seed=seed), work_dir=str(tmp_path)))
    with pytest.raises(ConfigError, match=f'randomness.seed={seed}: choose one from 0'):
        train(config)


@pytest.mark.slow
def test_image_that_is_missing_is_named(glyphs, tmp_path):
    config = tiny.tiny_config(glyphs, tmp_path, train_dataloader__num_workers=1)
    config.train_dataloader.dataset.data_prefix = dict(img='elsewhere/')
    with pytest.raises(UserError, match='elsewhere'):
        train(config)
    assert not multiprocessing.active_children()


def with_validation(config, **evaluator):
    """After every step, on the test data, whose annotations the metric is not told."""
    config.val_dataloader = config.test_dataloader
    config.val_cfg = dict(type='ValLoop')
    config.val_evaluator = dict(dict(type='CocoMetric', metric=['bbox', 'segm']), **evaluator)
    config.train_cfg.val_interval = 1
    return config


def test_figures_by_mmdetections_names(glyphs, tmp_path):
    config = with_validation(tiny.tiny_config(glyphs, tmp_path, train_cfg__max_iters=3), classwise=True)
    config.default_hooks.checkpoint.save_best = ['coco/bbox_mAP', 'coco/segm_mAP_s']
    # Nothing improves by so much: after the first validation one more is waited for.
    config.custom_hooks = [
        dict(type='EarlyStoppingHook', monitor='segm_AP', min_delta=2.0, patience=2),
        dict(type='EarlyStoppingHook', monitor='coco/bbox_mAP_50', min_delta=2.0, patience=1),
    ]
    runner = train(config)
    assert runner.iter == 2
    for name in ('bbox_mAP', 'segm_mAP_s'):
        assert runner.message_hub.get_info(f'best_score_coco/{name}') > -1.1
        assert list(tmp_path.glob(f'best_coco_{name}_iter_*.pth'))
    logged = next(tmp_path.glob('*/*.log')).read_text()
    assert 'coco/bbox_AP: ' in logged and 'mAP:' not in logged and '_precision: ' in logged
    (metric,) = runner.val_loop.evaluator.metrics
    assert metric.ground_truth.path == config.val_dataloader.dataset.data_root + '/annotations/glyph_lt_val.json'


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            dict(default_hooks=dict(checkpoint=dict(type='CheckpointHook', save_best='coco/bbox_mAP_95'))),
            'default_hooks.checkpoint.save_best: the validation has no figure `coco/bbox_mAP_95`; did you mean `coco',
        ),
        (
            dict(custom_hooks=[dict(type='EarlyStoppingHook', monitor='lvis/segm_AP')]),
            'EarlyStoppingHook.monitor: the validation has no figure `lvis/segm_AP`; did you mean `',
        ),
        (
            dict(param_scheduler=[dict(type='ReduceOnPlateauLR', monitor='coco/proposal_mAP')]),
            'param_scheduler.monitor: the validation has no figure `coco/proposal_mAP`',
        ),
    ],
)
def test_figures_that_there_will_never_be(glyphs, tmp_path, monkeypatch, changes, message):
    config = with_validation(tiny.tiny_config(glyphs, tmp_path))
    config.merge_from_dict(changes)
    monkeypatch.setattr('mmdet.models.detectors.MaskRCNN.loss', lambda *_: pytest.fail('a step is taken'))
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        train(config)
    assert '\n' not in str(error.value)


def test_data_of_several_files_have_no_annotation_file_of_their_own(glyphs, tmp_path):
    config = with_validation(tiny.tiny_config(glyphs, tmp_path))
    dataset = config.val_dataloader.dataset.to_dict()
    config.val_dataloader = dict(config.val_dataloader, dataset=dict(type='ConcatDataset', datasets=[dataset] * 2))
    with pytest.raises(ConfigError, match='^CocoMetric needs the key `ann_file`: val_dataloader.dataset is not of one'):
        train(config)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['none.py'], 'error: none.py: no such config file\n'),
        (
            [str(tiny.CONFIGS / 'quickstart/base.py'), '--cfg-options', 'optim_wraper.optimizer.lr=1'],
            f'error: {tiny.CONFIGS / "quickstart/base.py"}: top-level key `optim_wraper` is not known; '
            f'did you mean `optim_wrapper`?\n',
        ),
        (
            [str(tiny.CONFIGS / 'quickstart/base.py'), '--launcher', 'pytorch'],
            'error: --launcher pytorch: RANK is not set; start the tool with `torchrun --nproc_per_node=2 ...`\n',
        ),
    ],
)
def test_tool_ends_with_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, 'argv', ['train.py', *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(TOOLS / 'train.py'), run_name='__main__')
    assert end.value.code == 2
    assert capsys.readouterr().err == message


@pytest.mark.slow
def test_tool_trains(glyphs, tmp_path, monkeypatch, capsys):
    options = [f'{key}={value}' for key, value in tiny.tiny_options(glyphs, train_cfg__max_iters=1).items()]
    config = str(tiny.CONFIGS / 'quickstart/base.py')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['train.py', config, '--amp', '--resume', '--cfg-options', *options])
    runpy.run_path(str(TOOLS / 'train.py'), run_name='__main__')
    assert capsys.readouterr().out == f'trained: {tmp_path}/work_dirs/base/iter_1.pth\n'
    assert (tmp_path / 'work_dirs/base/iter_1.pth').is_file()
