"""Transforms: from a file name to the tensors of one image. Random ones draw from `results['rng']` only."""
from .cropping import FilterAnnotations, RandomCrop
from .formatting import PackDetInputs
from .geometry import Pad, RandomChoiceResize, RandomFlip, RandomResize, Resize
from .legacy_resize import LegacyResize
from .loading import LoadAnnotations, LoadImageFromFile
from .test_time_aug import TestTimeAug
from .torchvision_resize import TorchvisionResize

__all__ = [
    'FilterAnnotations',
    'LegacyResize',
    'LoadAnnotations',
    'LoadImageFromFile',
    'PackDetInputs',
    'Pad',
    'RandomChoiceResize',
    'RandomCrop',
    'RandomFlip',
    'RandomResize',
    'Resize',
    'TestTimeAug',
    'TorchvisionResize',
]
