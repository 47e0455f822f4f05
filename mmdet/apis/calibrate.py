"""Calibrating a trained detector: from a config and a checkpoint to one checkpoint that holds both classifiers."""
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import barrier
from torch import nn

from mmdet.calibration import CalibrationModel, build_calibrator
from mmdet.datasets.samplers.bi_level import images_of_rank
from mmdet.engine import Runner, config_errors, load_weights, read_checkpoint, require_keys
from mmdet.engine.runner import class_frequency
from mmdet.errors import CheckpointError, ConfigError
from mmdet.registry import DATASETS, MODELS, ROI_SELECTORS

from .train import prepare_run

RESULT = 'calibrated.pth'
_CHECKPOINTS_A_RUN = 10


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
    prepare_run(cfg)
    recipe = cfg.calibration
    with config_errors(cfg):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        frequency = class_frequency(dataset)
        if frequency is None:
            raise ConfigError(
                f'{cfg.filename}: train_dataloader.dataset is {type(dataset).__name__}, which cannot count its '
                'classes; calibrate on a CocoDataset or one derived from it'
            )
        detector = _trained_detector(cfg, checkpoint, dataset.metainfo['classes'])
        build_calibrator(recipe.calibrator, detector, frequency)
        model = CalibrationModel(detector, ROI_SELECTORS.build(recipe.selector))
        runner = _runner(cfg, model, dataset)
        runner.checkpoint_meta['calibrator'] = recipe.calibrator.to_dict()
        runner.train()
    reached = dict(epoch=0, iter=runner.iter)
    runner.save_checkpoint(runner.work_dir, RESULT, save_optimizer=False, save_param_scheduler=False, meta=reached)
    barrier()
    return Path(runner.work_dir) / RESULT


def _trained_detector(cfg: Config, path: str | Path, classes: tuple[str, ...]) -> nn.Module:
    """The config's detector with the checkpoint's weights.

    Raises:
        CheckpointError: where it was trained on other classes than the data set's.
    """
    checkpoint = read_checkpoint(path)
    trained_on = checkpoint.get('meta', {}).get('dataset_meta', {}).get('classes')
    if trained_on is not None and list(trained_on) != list(classes):
        different = next((i for i, (a, b) in enumerate(zip(trained_on, classes, strict=False)) if a != b), None)
        how = f'{len(trained_on)} against {len(classes)}'
        if different is not None:
            how = f'class {different} is {trained_on[different]!r} against {classes[different]!r}'
        raise CheckpointError(
            f'{path}: was trained on other classes than train_dataloader.dataset has ({how}); '
            'calibrate on the data set it was trained on'
        )
    detector = MODELS.build(cfg.model)
    state = {name: value for name, value in checkpoint['state_dict'].items() if 'roi_head.calibrator.' not in name}
    load_weights(detector, dict(checkpoint, state_dict=state), str(path))
    return detector


def _runner(cfg: Config, model: CalibrationModel, dataset) -> Runner:
    """A runner of `calibration.max_steps` steps on bi-level samples."""
    recipe = cfg.calibration
    hooks = dict(cfg.get('default_hooks', {}))
    hooks['checkpoint'] = dict(
        type='CheckpointHook',
        by_epoch=False,
        interval=max(recipe.max_steps // _CHECKPOINTS_A_RUN, 1),
        max_keep_ckpts=1,
    )
    return Runner(
        model=model,
        work_dir=cfg.work_dir,
        train_dataloader=dict(
            dataset=dataset,
            sampler=recipe.sampler,
            batch_size=images_of_rank(recipe.sampler.classes_per_step, recipe.sampler.images_per_class),
            num_workers=recipe.num_workers,
            persistent_workers=recipe.num_workers > 0,
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=recipe.max_steps),
        optim_wrapper=dict(dict(type='OptimWrapper'), **recipe.optim_wrapper),
        param_scheduler=recipe.get('param_scheduler'),
        default_hooks=hooks,
        resume=cfg.get('resume', False),
        launcher=cfg.get('launcher', 'none'),
        env_cfg=cfg.get('env_cfg', {}),
        log_processor=dict(type='LogProcessor', by_epoch=False),
        log_level=cfg.get('log_level', 'INFO'),
        randomness=cfg.get('randomness', {}),
        default_scope=cfg.default_scope,
        experiment_name=f'calibrate_{Path(cfg.filename).stem}' if cfg.filename else None,
        cfg=cfg,
    )
