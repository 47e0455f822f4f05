"""Testing a detector: detections once, figures under every score setting asked for."""
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine import Config
from mmengine.dist import barrier, is_main_process
from mmengine.evaluator import Evaluator
from torch import nn

from mmdet.engine import Runner, config_errors, read_checkpoint, require_keys
from mmdet.engine.evaluator import ResultsPickle, SettingsEvaluator
from mmdet.engine.runner import class_frequency
from mmdet.errors import ConfigError
from mmdet.evaluation import write_per_class
from mmdet.evaluation.streaming_metric import StreamingMetric
from mmdet.models import optimize_for_inference
from mmdet.models.detectors import score_settings_of
from mmdet.registry import DATASETS, METRICS
from mmdet.structures import ClassFrequency
from mmdet.utils.files import written_whole

from .classes import check_num_classes, check_trained_classes
from .inference import build_detector
from .test_time_augmentation import build_tta_model, with_test_time_augmentation
from .train import prepare_run

Figures = dict[str, dict[str, float]]


def test(
    cfg: Config,
    checkpoint: str | Path,
    scores: Sequence[str] | None = None,
    threshold: int | None = None,
    out: str | Path | None = None,
    show_dir: str | Path | None = None,
    show: bool = False,
    wait_time: float = 0.0,
    format_only: bool = False,
    batch_size: int | None = None,
    tta: bool = False,
    on_file: Callable[[Path], None] = lambda path: None,
    adapt: Callable[[nn.Module], nn.Module] = lambda detector: detector,
) -> Figures:
    """Test a checkpoint on the config's test data, in one pass for all score settings.

    Figures go to `test/{setting}.json` in `cfg.work_dir`, APs of the classes to `test/{setting}_per_class.json`, and
    those of a further metric to `test/{setting}_per_class_{its prefix}.json`.

    Args:
        cfg: a complete config with `work_dir`, and `launcher` where it is not the default.
        checkpoint: a detector, calibrated or not.
        scores: settings: `'base'`, and of a calibrated detector those its calibrator knows (SimCal: `'dual'`,
            `'calibrated'`, `'average'`); None is the calibrator's default, or `'base'`.
        threshold: T of the calibrator, in the place of the calibrated checkpoint's own.
        out: where detections are kept: a `.pkl` (see `ResultsPickle`), or a `.json`, by which `x.json` becomes
            `x.bbox.json` and `x.segm.json` in the official evaluators' format (`x.{setting}.bbox.json` of several).
        show_dir: where pictures of the detections are written, if anywhere.
        show: show the pictures in a window, each for `wait_time` seconds (0: until a key is pressed).
        wait_time: see `show`.
        format_only: write result files for an evaluation elsewhere, and compute nothing.
        batch_size: in the place of the config's.
        tta: detect from several views of each image; see `with_test_time_augmentation`.
        on_file: called, in the first process, with every file of detections that has been written.
        adapt: makes of the detector what is tested in its place.

    Returns:
        For each setting its figures, 0..1, by their names with the evaluator's prefix (`lvis/segm_AP`).

    Raises:
        UserError: a config, annotation, image or checkpoint that cannot be used; the message says which, and the mend.
    """
    require_keys(cfg, 'model', 'test_dataloader', 'test_evaluator', 'work_dir')
    if out is not None and Path(out).suffix not in ('.pkl', '.json'):
        raise ConfigError(f'--out {out}: results are written as .pkl or .json')
    if format_only and out is not None and Path(out).suffix == '.pkl':
        raise ConfigError('--format-only writes .json; give --out FILE.json')
    if batch_size is not None and batch_size < 1:
        raise ConfigError(f'--batch-size {batch_size}: must be at least 1')
    prepare_run(cfg)
    if tta:
        cfg = with_test_time_augmentation(cfg)
    if batch_size is not None:
        cfg.test_dataloader.batch_size = batch_size
    contents = read_checkpoint(checkpoint)
    detector = adapt(build_detector(cfg, contents, checkpoint, scores, threshold))
    settings = score_settings_of(detector)
    folder = Path(cfg.work_dir) / 'test'
    if format_only and out is None:
        out = folder / 'results.json'
    with config_errors(cfg):
        metrics = {setting: _metrics(cfg, setting, settings, out, format_only) for setting in settings}
        evaluator = SettingsEvaluator(
            {setting: Evaluator(of_setting) for setting, of_setting in metrics.items()},
            [ResultsPickle(out)] if out is not None and Path(out).suffix == '.pkl' else [],
        )
        hooks = dict(cfg.get('default_hooks') or {})
        if show or show_dir is not None:
            hooks['visualization'] = dict(
                hooks.get('visualization') or dict(type='DetVisualizationHook'),
                **dict(draw=True, show=show, wait_time=wait_time, test_out_dir=show_dir and str(show_dir)),
            )
        runner = _runner(cfg, build_tta_model(cfg, detector) if tta else detector, evaluator, hooks)
        dataset = runner.test_loop.dataloader.dataset
    check_num_classes(detector, dataset.metainfo['classes'], 'test_dataloader', cfg.filename)
    check_trained_classes(contents['meta'].get('dataset_meta') or {}, dataset.metainfo, checkpoint, 'test_dataloader')
    frequency = _training_counts(cfg, contents['meta'])
    for metric in evaluator.metrics:
        if isinstance(metric, StreamingMetric):
            metric.class_frequency = frequency
    optimize_for_inference(detector)
    with torch.inference_mode():
        figures = _by_setting(runner.test(), settings)
    if is_main_process():
        for path in _files_of_detections(evaluator.metrics):
            on_file(path)
        if not format_only:
            _write(figures, metrics, folder)
    barrier()
    return figures


def _metrics(
    cfg: Config, setting: str, settings: Sequence[str], out: str | Path | None, format_only: bool
) -> list[Any]:
    """The config's metrics for one setting."""
    configs = cfg.test_evaluator if isinstance(cfg.test_evaluator, (list, tuple)) else [cfg.test_evaluator]
    several = len(settings) > 1
    metrics = []
    for config in configs:
        config = dict(config)
        kind = METRICS.get(config['type'])
        if isinstance(kind, type) and issubclass(kind, StreamingMetric):
            if several:
                config.pop('scores', None)  # each setting's metric is given that setting's detections
            if format_only:
                config['format_only'] = True
            if out is not None and Path(out).suffix == '.json':
                prefix = Path(out).with_suffix('')
                config['outfile_prefix'] = f'{prefix}.{setting}' if several else str(prefix)
        metrics.append(METRICS.build(config))
    return metrics


def _runner(cfg: Config, detector: nn.Module, evaluator: Evaluator, hooks: dict) -> Runner:
    return Runner(
        model=detector,
        work_dir=cfg.work_dir,
        test_dataloader=cfg.test_dataloader,
        test_cfg=cfg.get('test_cfg') or {},
        test_evaluator=evaluator,
        default_hooks=hooks,
        custom_hooks=cfg.get('custom_hooks'),
        launcher=cfg.get('launcher', 'none'),
        env_cfg=cfg.get('env_cfg', {}),
        log_processor=cfg.get('log_processor'),
        log_level=cfg.get('log_level', 'INFO'),
        visualizer=cfg.get('visualizer'),
        default_scope=cfg.get('default_scope', 'mmdet'),
        randomness=cfg.get('randomness', dict(seed=None)),
        experiment_name=f'test_{Path(cfg.filename).stem}' if cfg.filename else None,
        cfg=cfg,
    )


def _training_counts(cfg: Config, meta: Mapping[str, Any]) -> ClassFrequency | None:
    """Training instances of every class, from the checkpoint or else from the config's training annotations."""
    if 'class_frequency' in meta:
        return ClassFrequency.from_dict(meta['class_frequency'])
    config = cfg.get('train_dataloader', {}).get('dataset', {})
    while 'ann_file' not in config and 'dataset' in config:
        config = config['dataset']
    if 'ann_file' not in config or not Path(config.get('data_root', ''), config['ann_file']).is_file():
        return None
    return class_frequency(DATASETS.build(dict(config, pipeline=[])))


def _files_of_detections(metrics: Iterable[Any]) -> Iterator[Path]:
    """What metrics have written beside the figures."""
    for metric in metrics:
        if isinstance(metric, ResultsPickle):
            yield Path(metric.path)
        elif isinstance(metric, StreamingMetric) and metric.outfile_prefix is not None:
            yield from (Path(f'{metric.outfile_prefix}.{iou_type}.json') for iou_type in metric.iou_types)


def _by_setting(figures: Mapping[str, float], settings: Sequence[str]) -> Figures:
    """From `{setting}/{name}` to a dict for each setting."""
    split: Figures = {setting: {} for setting in settings}
    for name, figure in figures.items():
        setting, _, own_name = name.partition('/')
        split[setting][own_name] = figure
    return split


def _write(figures: Figures, metrics: Mapping[str, Sequence[Any]], folder: Path) -> None:
    for setting, of_setting in figures.items():
        finite = {name: None if math.isnan(figure) else figure for name, figure in of_setting.items()}
        with written_whole(folder / f'{setting}.json') as file:
            file.write(json.dumps(finite, indent=1).encode())
        with_classes = [each for each in metrics[setting] if isinstance(each, StreamingMetric) and each.class_figures]
        for number, metric in enumerate(with_classes):
            name = f'{setting}_per_class_{metric.prefix}.json' if number else f'{setting}_per_class.json'
            write_per_class(metric.per_class, folder / name)
