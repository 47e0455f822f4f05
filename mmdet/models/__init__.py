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

__all__ = [
    'backbones',
    'data_preprocessors',
    'dense_heads',
    'detectors',
    'layers',
    'losses',
    'necks',
    'roi_heads',
    'task_modules',
]
