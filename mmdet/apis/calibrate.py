"""Calibrating a trained detector: from a config and a checkpoint to one checkpoint that holds both classifiers."""
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import barrier, sync_random_seed
from mmengine.hooks import EMAHook, Hook
from torch import nn

from mmdet.calibration import BankedCalibrationModel, CalibrationModel, DrawnClassSelector, build_calibrator
from mmdet.datasets.samplers import BiLevelSampler
from mmdet.engine import (
    Runner,
    check_known_keys,
    checkpoint_to_resume,
    config_errors,
    fingerprint,
    load_weights,
    mixed_precision,
    read_checkpoint,
    require_keys,
)
from mmdet.engine.runner import class_frequency
from mmdet.errors import CheckpointError, ConfigError
from mmdet.registry import DATA_SAMPLERS, DATASETS, HOOKS, MODELS, ROI_SELECTORS
from mmdet.utils.seeding import keyed_torch_rng

from .classes import check_num_classes, check_trained_classes
from .feature_bank import BankedVisits, fill_feature_bank, plan_feature_bank
from .train import prepare_run

RESULT = 'calibrated.pth'
_REQUIRED = ('calibrator', 'sampler', 'selector', 'max_steps', 'optim_wrapper')
_OPTIONAL = ('param_scheduler', 'num_workers', 'feature_bank')
_CHECKPOINTS_A_RUN = 10
_CHECKPOINTS_WITH_A_BANK = 2  # writing them would take longer than repeating what lies between them
_INITIALISATION = 1  # sets the stream of the calibrator's initial weights apart from others keyed to the seed alone


def calibrate(cfg: Config, checkpoint: str | Path) -> Path:
    """Calibrate the detector of `checkpoint` as `cfg.calibration` says; the detector itself stays as it is.

    Args:
        cfg: a complete config with a `calibration`; `work_dir`, `launcher`, `resume` and `randomness` as for training.
        checkpoint: the trained detector.

    Returns:
        `calibrated.pth` in the work directory: base, calibrator, class frequencies and data set meta.

    Raises:
        ConfigError: no `calibration` in the config, or parts that do not fit each other.
        CheckpointError: the checkpoint is not this config's detector, or of other classes.
    """
    require_keys(cfg, 'model', 'train_dataloader', 'calibration', 'work_dir')
    recipe = cfg.calibration
    check_known_keys(recipe, (*_REQUIRED, *_OPTIONAL), f'{cfg.filename}: calibration: the key')
    require_keys(cfg, *(f'calibration.{key}' for key in _REQUIRED))
    if not isinstance(recipe.max_steps, int) or recipe.max_steps < 1:
        raise ConfigError(f'{cfg.filename}: calibration.max_steps={recipe.max_steps}: give a number of steps from 1')
    prepare_run(cfg)
    seed = _seed(cfg)
    with config_errors(cfg):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        frequency = class_frequency(dataset)
        if frequency is None:
            raise ConfigError(
                f'{cfg.filename}: train_dataloader.dataset is {type(dataset).__name__}, which cannot count its '
                'classes; calibrate on a CocoDataset or one derived from it'
            )
        detector = _trained_detector(cfg, checkpoint, dataset.metainfo)
        base = fingerprint(detector.state_dict())
        with keyed_torch_rng(seed, _INITIALISATION):
            build_calibrator(recipe.calibrator, detector, frequency)
        selector = ROI_SELECTORS.build(recipe.selector)
        sampler = DATA_SAMPLERS.build(recipe.sampler, default_args=dict(dataset=dataset, seed=seed))
        if recipe.get('feature_bank') is None:
            model = CalibrationModel(detector, selector)
            runner = _runner(cfg, model, dataset, sampler, seed, recipe.get('num_workers', 0), _CHECKPOINTS_A_RUN)
        else:
            runner = _runner_with_bank(cfg, detector, selector, dataset, sampler, seed, base)
        runner.checkpoint_meta.update(calibrator=recipe.calibrator.to_dict(), base_sha256=base)
        runner.register_hook(_SameBaseHook(base))
        runner.train()
    reached = dict(epoch=0, iter=runner.iter)
    runner.save_checkpoint(runner.work_dir, RESULT, save_optimizer=False, save_param_scheduler=False, meta=reached)
    barrier()
    return Path(runner.work_dir) / RESULT


class _SameBaseHook(Hook):
    """Refuses to go on with a calibration of another base than `base`, the fingerprint of this one's weights."""

    def __init__(self, base: str):
        self.base = base

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if checkpoint['meta'].get('base_sha256', self.base) != self.base:
            raise CheckpointError(
                f'{runner.work_dir}: the calibration to be resumed was calibrated from another base; '
                'start in another --work-dir'
            )


def _seed(cfg: Config) -> int:
    """The config's seed; else that of the calibration which is resumed; else a new one, the same in all processes."""
    seed = (cfg.get('randomness') or {}).get('seed')
    if seed is not None:
        return seed
    resumed = checkpoint_to_resume(cfg.get('resume'), cfg.work_dir)
    seed = None if resumed is None else read_checkpoint(resumed)['meta'].get('seed')
    return sync_random_seed() if seed is None else seed


def _trained_detector(cfg: Config, path: str | Path, metainfo: Mapping[str, Any]) -> nn.Module:
    """The config's detector with the checkpoint's weights.

    Raises:
        CheckpointError: where it was trained on other classes than the data set's.
    """
    checkpoint = read_checkpoint(path)
    check_trained_classes(checkpoint['meta'].get('dataset_meta') or {}, metainfo, path, 'train_dataloader')
    detector = MODELS.build(cfg.model)
    state = {name: value for name, value in checkpoint['state_dict'].items() if 'roi_head.calibrator.' not in name}
    load_weights(detector, dict(checkpoint, state_dict=state), str(path))
    check_num_classes(detector, metainfo['classes'], 'train_dataloader', cfg.filename)
    return detector


def _averages(hook: Hook | Mapping[str, Any]) -> bool:
    """Whether a hook averages weights over training: made for the base, it would hold the calibrator at its start."""
    kind = hook['type'] if isinstance(hook, Mapping) else type(hook)
    kind = HOOKS.get(kind) if isinstance(kind, str) else kind
    return isinstance(kind, type) and issubclass(kind, EMAHook)


def _runner_with_bank(
    cfg: Config,
    detector: nn.Module,
    selector: DrawnClassSelector,
    dataset: Any,
    sampler: BiLevelSampler,
    seed: int,
    base: str,
) -> Runner:
    """A runner whose steps take their RoI features from a bank, which has been filled; `base` is a fingerprint."""
    num_workers = cfg.calibration.get('num_workers', 0)
    plan = plan_feature_bank(cfg, detector, dataset, sampler, base)
    bank = plan.folder.bank
    model = BankedCalibrationModel(detector, selector, bank, plan.settings.draws, plan.most_backgrounds)
    visits = BankedVisits(dataset, plan.seen, bank)
    loader_workers = 0 if plan.surely_fits else num_workers
    runner = _runner(cfg, model, visits, sampler, seed, loader_workers, _CHECKPOINTS_WITH_A_BANK)
    fill_feature_bank(plan, runner, dataset, sampler.images_per_step, num_workers)
    return runner


def _runner(
    cfg: Config,
    model: CalibrationModel,
    dataset: Any,
    sampler: BiLevelSampler,
    seed: int,
    num_workers: int,
    num_checkpoints: int,
) -> Runner:
    """A runner of `calibration.max_steps` steps on bi-level samples."""
    recipe = cfg.calibration
    hooks = dict(cfg.get('default_hooks') or {})
    hooks['checkpoint'] = dict(
        type='CheckpointHook',
        by_epoch=False,
        interval=max(recipe.max_steps // num_checkpoints, 1),
        max_keep_ckpts=1,
    )
    optim_wrapper = dict(dict(type='OptimWrapper'), **recipe.optim_wrapper)
    if optim_wrapper['type'] == 'AmpOptimWrapper':
        optim_wrapper = mixed_precision(optim_wrapper)
    return Runner(
        model=model,
        work_dir=cfg.work_dir,
        train_dataloader=dict(
            dataset=dataset,
            sampler=sampler,
            batch_size=sampler.images_per_step,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=recipe.max_steps),
        optim_wrapper=optim_wrapper,
        param_scheduler=recipe.get('param_scheduler'),
        default_hooks=hooks,
        custom_hooks=[hook for hook in cfg.get('custom_hooks') or () if not _averages(hook)],
        resume=cfg.get('resume', False),
        launcher=cfg.get('launcher', 'none'),
        env_cfg=cfg.get('env_cfg', {}),
        log_processor=dict(type='LogProcessor', by_epoch=False),
        log_level=cfg.get('log_level', 'INFO'),
        visualizer=cfg.get('visualizer'),
        randomness=dict(cfg.get('randomness') or {}, seed=seed),
        default_scope=cfg.default_scope,
        experiment_name=f'calibrate_{Path(cfg.filename).stem}' if cfg.filename else None,
        cfg=cfg,
    )
