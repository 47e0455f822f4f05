"""Whole detectors: images in, losses or detections out."""
from .base import BaseDetector, num_classes_of_heads, score_settings_of
from .two_stage import CascadeRCNN, FasterRCNN, HybridTaskCascade, MaskRCNN, TwoStageDetector

__all__ = [
    'BaseDetector',
    'CascadeRCNN',
    'FasterRCNN',
    'HybridTaskCascade',
    'MaskRCNN',
    'TwoStageDetector',
    'num_classes_of_heads',
    'score_settings_of',
]
