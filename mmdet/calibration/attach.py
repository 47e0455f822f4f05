"""Putting a calibrator into a detector, at the start of a calibration and from a checkpoint."""
from collections.abc import Mapping
from typing import Any

from mmdet.errors import CheckpointError, ConfigError
from mmdet.models.detectors import BaseDetector
from mmdet.registry import CALIBRATORS
from mmdet.structures import ClassFrequency

from .calibrator import Calibrator
from .missing_classifier import remove_classifiers


def build_calibrator(config: Mapping[str, Any], detector: BaseDetector, frequency: ClassFrequency) -> Calibrator:
    """Build a calibrator for a detector and attach it.

    Raises:
        ConfigError: where the detector and the counts are of different classes, or it cannot be calibrated.
    """
    if not isinstance(detector, BaseDetector):
        raise ConfigError(
            f'model.type={type(detector).__name__} is no BaseDetector (mmdet/models/detectors/base.py), so it cannot '
            'be calibrated'
        )
    num_classes = detector.box_heads[0].num_classes
    if len(frequency) != num_classes:
        raise ConfigError(
            f'the training counts are of {len(frequency)} classes, the detector has '
            f'model.roi_head.bbox_head.num_classes={num_classes}: use the data set it was trained on'
        )
    if 'type' not in config:
        raise ConfigError('calibration.calibrator: the key `type` is missing')
    if CALIBRATORS.get(config['type']) is None:
        raise ConfigError(
            f'calibration.calibrator.type={config["type"]} is not known; there are {", ".join(sorted(_known()))}'
        )
    calibrator = CALIBRATORS.build(dict(config)).bind(detector.box_heads, frequency)
    detector.set_calibrator(calibrator)
    detector.score_settings = [calibrator.score_settings[0]]
    return calibrator


def attach_calibrator(detector: BaseDetector, meta: Mapping, threshold: int | None = None) -> Calibrator:
    """Attach the calibrator a checkpoint's meta describes; its weights come with the checkpoint's state dict.

    Args:
        detector: built from the config, weights not loaded yet.
        meta: of a calibrated checkpoint: `calibrator` (its config) and `class_frequency`; `base_classifier` is False
            where it holds no classifier but the calibrator's.
        threshold: in the place of the calibrator's own T.

    Raises:
        CheckpointError: where meta holds no calibrator.
        ConfigError: a threshold for a calibrator that has none.
    """
    missing = [key for key in ('calibrator', 'class_frequency') if key not in meta]
    if missing:
        raise CheckpointError(f'the checkpoint holds no {" and no ".join(missing)}; make one with tools/calibrate.py')
    calibrator = build_calibrator(meta['calibrator'], detector, ClassFrequency.from_dict(meta['class_frequency']))
    if threshold is not None:
        if 'threshold' not in calibrator.choices:
            raise ConfigError(f'--threshold {threshold}: {type(calibrator).__name__} has no threshold')
        calibrator.choose(threshold=threshold)
    if not meta.get('base_classifier', True):
        remove_classifiers(detector)
    return calibrator


def _known() -> list[str]:
    return list(CALIBRATORS.module_dict)
