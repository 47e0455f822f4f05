"""Calibrating a trained detector: from a config and a checkpoint to one checkpoint that holds both classifiers."""
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.dist import barrier, is_main_process, sync_random_seed
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import OptimWrapper

from mmdet.calibration import (
    BankedCalibrationModel,
    CalibrationModel,
    Calibrator,
    RoISelector,
    TrainingAnnotations,
    build_calibrator,
)
from mmdet.datasets.samplers import StreamSampler
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
    save_checkpoint,
)
from mmdet.engine.runner import class_frequency, run_meta
from mmdet.errors import CheckpointError, ConfigError
from mmdet.models.detectors import BaseDetector
from mmdet.registry import DATA_SAMPLERS, DATASETS, HOOKS, MODELS, ROI_SELECTORS
from mmdet.utils.seeding import keyed_torch_rng

from .classes import check_num_classes, check_trained_classes
from .feature_bank import BankedVisits, fill_feature_bank, plan_feature_bank
from .train import prepare_run

RESULT = 'calibrated.pth'
_OF_STEPS = ('sampler', 'selector', 'max_steps')
_OF_TRAINING = ('optim_wrapper', 'param_scheduler')
_OPTIONAL = ('num_workers', 'feature_bank')
_OF_COMPARISONS = ('choices',)
_CHECKPOINTS_A_RUN = 10
_CHECKPOINTS_WITH_A_BANK = 2  # writing them would take longer than repeating what lies between them
_INITIALISATION = 1  # sets the stream of the calibrator's initial weights apart from others keyed to the seed alone


def calibrate(cfg: Config, checkpoint: str | Path) -> Path:
    """Calibrate the detector of `checkpoint` as `cfg.calibration` says; the detector itself stays as it is.

    `cfg.calibration` has a `calibrator`; where that looks at training images, also `sampler`, `selector` and
    `max_steps` and, optional, `num_workers` and `feature_bank`; where it learns by gradients, also an `optim_wrapper`
    and, optional, a `param_scheduler`.

    Args:
        cfg: a complete config with a `calibration`; `work_dir`, `launcher`, `resume` and `randomness` as for training.
        checkpoint: the trained detector.

    Returns:
        `calibrated.pth` in the work directory: base, calibrator, class frequencies and data set meta.

    Raises:
        ConfigError: no `calibration` in the config, or parts that do not fit each other.
        CheckpointError: the checkpoint is not this config's detector, or of other classes.
    """
    with config_errors(cfg):
        prepared = _prepare(cfg, checkpoint)
        if not prepared.calibrator.takes_steps:
            return _written_at_once(cfg, prepared)
        runner = _runner_of(cfg, prepared)
        runner.checkpoint_meta.update(prepared.meta)
        runner.register_hook(_SameBaseHook(prepared.base))
        runner.train()
    reached = dict(epoch=0, iter=runner.iter)
    runner.save_checkpoint(runner.work_dir, RESULT, save_optimizer=False, save_param_scheduler=False, meta=reached)
    barrier()
    return Path(runner.work_dir) / RESULT


def extract_features(cfg: Config, checkpoint: str | Path) -> None:
    """Fill the feature bank of a calibration, and do no more; see `calibrate`."""
    require_keys(cfg, 'calibration.feature_bank')
    with config_errors(cfg):
        _runner_of(cfg, _prepare(cfg, checkpoint))


class _Prepared(NamedTuple):
    """A calibration before its first step.

    Attributes:
        detector: with its calibrator.
        dataset: of the training images.
        seed: of the run.
        base: fingerprint of the detector's weights.
        meta: of the checkpoints, beside what every run's have.
    """

    detector: BaseDetector
    dataset: Any
    seed: int
    base: str
    meta: Mapping[str, Any]

    @property
    def calibrator(self) -> Calibrator:
        """The detector's."""
        return self.detector.calibrator


def _prepare(cfg: Config, checkpoint: str | Path) -> _Prepared:
    """Build the detector and its calibrator, and see that the config has what these need."""
    require_keys(cfg, 'model', 'train_dataloader', 'calibration', 'calibration.calibrator', 'work_dir')
    recipe = cfg.calibration
    known = ('calibrator', *_OF_STEPS, *_OF_TRAINING, *_OPTIONAL, *_OF_COMPARISONS)
    check_known_keys(recipe, known, f'{cfg.filename}: calibration: the key')
    prepare_run(cfg)
    seed = _seed(cfg)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    frequency = class_frequency(dataset)
    if frequency is None:
        raise ConfigError(
            f'{cfg.filename}: train_dataloader.dataset is {type(dataset).__name__}, which cannot count its '
            'classes; calibrate on a CocoDataset or one derived from it'
        )
    detector = trained_detector(cfg, checkpoint, dataset.metainfo)
    base = fingerprint(detector.state_dict())
    with keyed_torch_rng(seed, _INITIALISATION):
        calibrator = build_calibrator(recipe.calibrator, detector, frequency)
    calibrator.prepare(TrainingAnnotations(dataset))
    _check_recipe(cfg, calibrator)
    return _Prepared(detector, dataset, seed, base, dict(calibrator=recipe.calibrator.to_dict(), base_sha256=base))


def _runner_of(cfg: Config, prepared: _Prepared) -> Runner:
    """What takes the steps; a feature bank is filled here."""
    recipe, dataset, seed = cfg.calibration, prepared.dataset, prepared.seed
    selector = ROI_SELECTORS.build(recipe.selector)
    sampler = DATA_SAMPLERS.build(recipe.sampler, default_args=dict(dataset=dataset, seed=seed))
    if not isinstance(sampler, StreamSampler):
        raise ConfigError(
            f'{cfg.filename}: calibration.sampler is {type(sampler).__name__}; take one of calibration, as '
            'BiLevelSampler (classes first) and ImageSampler (images)'
        )
    if recipe.get('feature_bank') is not None:
        return _runner_with_bank(cfg, prepared.detector, selector, dataset, sampler, seed, prepared.base)
    model = CalibrationModel(prepared.detector, selector)
    return _runner(cfg, model, dataset, sampler, seed, recipe.get('num_workers', 0), _CHECKPOINTS_A_RUN)


def _check_recipe(cfg: Config, calibrator: Calibrator) -> None:
    """See that `calibration` has what its calibrator needs, and nothing that it does not.

    Raises:
        ConfigError: naming the key.
    """
    needed = (_OF_STEPS if calibrator.takes_steps else ()) + (('optim_wrapper',) if calibrator.is_trained else ())
    require_keys(cfg, *(f'calibration.{key}' for key in needed))
    name = type(calibrator).__name__
    for keys, is_used, why in (
        ((*_OF_STEPS, *_OPTIONAL), calibrator.takes_steps, 'looks at no training image'),
        (_OF_TRAINING, calibrator.is_trained, 'learns nothing by gradients'),
    ):
        unused = [key for key in keys if cfg.calibration.get(key) is not None]
        if unused and not is_used:
            raise ConfigError(f'{cfg.filename}: calibration.{unused[0]}: {name} {why}; leave it out')
    steps = cfg.calibration.get('max_steps')
    if calibrator.takes_steps and (not isinstance(steps, int) or steps < 1):
        raise ConfigError(f'{cfg.filename}: calibration.max_steps={steps}: give a number of steps from 1')


def _written_at_once(cfg: Config, prepared: _Prepared) -> Path:
    """The checkpoint of a calibration without steps."""
    path = Path(cfg.work_dir) / RESULT
    if is_main_process():
        meta = dict(epoch=0, iter=0, **run_meta(cfg, prepared.dataset), **prepared.meta, seed=prepared.seed)
        save_checkpoint(dict(meta=meta, state_dict=prepared.detector.state_dict()), path)
    barrier()
    return path


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


def trained_detector(cfg: Config, path: str | Path, metainfo: Mapping[str, Any]) -> BaseDetector:
    """The config's detector with the checkpoint's weights.

    Raises:
        CheckpointError: where it was trained on other classes than the data set's, or lacks its own classifier.
    """
    checkpoint = read_checkpoint(path)
    if not checkpoint['meta'].get('base_classifier', True):
        raise CheckpointError(f"{path}: does not hold the base's classifier; convert it again with --base")
    check_trained_classes(checkpoint['meta'].get('dataset_meta') or {}, metainfo, path, 'train_dataloader')
    detector = MODELS.build(cfg.model)
    state = {name: value for name, value in checkpoint['state_dict'].items() if 'calibrator.' not in name}
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
    detector: BaseDetector,
    selector: RoISelector,
    dataset: Any,
    sampler: StreamSampler,
    seed: int,
    base: str,
) -> Runner:
    """A runner whose steps take their RoI features from a bank, which has been filled; `base` is a fingerprint."""
    num_workers = cfg.calibration.get('num_workers', 0)
    plan = plan_feature_bank(cfg, detector, selector, dataset, sampler, base)
    bank = plan.folder.bank
    model = BankedCalibrationModel(detector, selector, bank, plan.settings.draws, plan.most_backgrounds)
    visits = BankedVisits(dataset, plan.visits, bank)
    loader_workers = 0 if plan.surely_fits else num_workers
    runner = _runner(cfg, model, visits, sampler, seed, loader_workers, _CHECKPOINTS_WITH_A_BANK)
    fill_feature_bank(plan, runner, dataset, sampler.images_per_step, num_workers)
    return runner


def _runner(
    cfg: Config,
    model: CalibrationModel,
    dataset: Any,
    sampler: StreamSampler,
    seed: int,
    num_workers: int,
    num_checkpoints: int,
) -> Runner:
    """A runner of `calibration.max_steps` steps."""
    recipe = cfg.calibration
    hooks = dict(cfg.get('default_hooks') or {})
    hooks['checkpoint'] = dict(
        type='CheckpointHook',
        by_epoch=False,
        interval=max(recipe.max_steps // num_checkpoints, 1),
        max_keep_ckpts=1,
    )
    if model.calibrator.is_trained:
        optim_wrapper = dict(dict(type='OptimWrapper'), **recipe.optim_wrapper)
        if optim_wrapper['type'] == 'AmpOptimWrapper':
            optim_wrapper = mixed_precision(optim_wrapper)
    else:
        # mmengine's loops and checkpoints want an optimizer, whether there is anything for it or not.
        nothing = torch.zeros((), requires_grad=True)
        optim_wrapper = OptimWrapper(torch.optim.SGD([nothing], lr=0.0))
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
