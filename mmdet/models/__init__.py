"""The detector's parts, each in the registry MODELS under mmdetection's name."""
from . import (
    backbones,
    data_preprocessors,
    dense_heads,
    detectors,
    layers,
    losses,
    necks,
    roi_heads,
    task_modules,
    test_time_augs,
)
from .inference import optimize_for_inference
from .training import optimize_for_training

__all__ = [
    'backbones',
    'data_preprocessors',
    'dense_heads',
    'detectors',
    'layers',
    'losses',
    'necks',
    'optimize_for_inference',
    'optimize_for_training',
    'roi_heads',
    'task_modules',
    'test_time_augs',
]
