"""A detector beside its upper bound."""
from collections.abc import Sequence
from pathlib import Path

from mmengine import Config

from mmdet.engine import require_keys
from mmdet.errors import ConfigError
from mmdet.evaluation.props_gt import PropsGTDetector

from .test import Figures, test


def props_gt(cfg: Config, checkpoint: str | Path, threshold: int | None = None) -> Figures:
    """Test a checkpoint under its own scores (and its calibrator's default, if it has one) and as Props-GT, in one
    pass.

    Figures are written as `test` writes them.

    Args:
        cfg: a complete config with `work_dir`.
        checkpoint: a detector, calibrated or not.
        threshold: T of the calibrator, in the place of the calibrated checkpoint's own.

    Returns:
        The figures of `base`, of the calibrator's default setting (SimCal: `dual`) and of `props_gt`, see `test`.

    Raises:
        UserError: as `test`.
    """
    require_keys(cfg, 'test_dataloader')
    dataset = cfg.test_dataloader.dataset
    if 'pipeline' not in dataset:
        raise ConfigError(f'{cfg.filename}: test_dataloader.dataset has no pipeline, which is to load its ground truth')
    dataset.pipeline = _with_boxes(dataset.pipeline)
    return test(cfg, checkpoint, threshold=threshold, adapt=PropsGTDetector)


def _with_boxes(pipeline: Sequence[dict]) -> list[dict]:
    """A pipeline that loads annotated boxes right after the image, so that what resizes it resizes them."""
    others = [transform for transform in pipeline if transform['type'] != 'LoadAnnotations']
    return [others[0], dict(type='LoadAnnotations', with_bbox=True), *others[1:]]
