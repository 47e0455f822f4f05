"""Test-time augmentation: one detection from several views of an image."""
from .det_tta import DetTTAModel

__all__ = ['DetTTAModel']
