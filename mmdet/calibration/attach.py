"""Putting a calibrator into a detector, at the start of a calibration and from a checkpoint."""
from collections.abc import Mapping

from torch import nn

from mmdet.errors import CheckpointError, ConfigError
from mmdet.registry import CALIBRATORS
from mmdet.structures import ClassFrequency

from .calibrator import Calibrator


def build_calibrator(config: Mapping, detector: nn.Module, frequency: ClassFrequency) -> Calibrator:
    """Build a calibrator for a detector and attach it to its RoI head.

    Raises:
        ConfigError: where the detector and the counts are of different classes.
    """
    num_classes = detector.roi_head.bbox_heads[0].num_classes
    if len(frequency) != num_classes:
        raise ConfigError(
            f'the training counts are of {len(frequency)} classes, the detector has '
            f'model.roi_head.bbox_head.num_classes={num_classes}: use the data set it was trained on'
        )
    calibrator = CALIBRATORS.build(dict(config)).bind(detector.roi_head.bbox_heads, frequency)
    detector.roi_head.calibrator = calibrator
    detector.roi_head.score_settings = [calibrator.score_settings[0]]
    return calibrator


def attach_calibrator(detector: nn.Module, meta: Mapping, threshold: int | None = None) -> Calibrator:
    """Attach the calibrator a checkpoint's meta describes; its weights come with the checkpoint's state dict.

    Args:
        detector: built from the config, weights not loaded yet.
        meta: of a calibrated checkpoint: `calibrator` (its config) and `class_frequency`.
        threshold: in the place of the calibrator's own T.

    Raises:
        CheckpointError: where meta holds no calibrator.
    """
    missing = [key for key in ('calibrator', 'class_frequency') if key not in meta]
    if missing:
        raise CheckpointError(f'the checkpoint holds no {" and no ".join(missing)}; make one with tools/calibrate.py')
    config = dict(meta['calibrator'])
    if threshold is not None:
        config['threshold'] = threshold
    return build_calibrator(config, detector, ClassFrequency.from_dict(meta['class_frequency']))
