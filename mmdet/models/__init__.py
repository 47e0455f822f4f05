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
)
from .inference import optimize_for_inference

__all__ = [
    'backbones',
    'data_preprocessors',
    'dense_heads',
    'detectors',
    'layers',
    'losses',
    'necks',
    'optimize_for_inference',
    'roi_heads',
    'task_modules',
]
