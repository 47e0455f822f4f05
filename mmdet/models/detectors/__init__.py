"""Whole detectors: images in, losses or detections out."""
from .two_stage import CascadeRCNN, FasterRCNN, HybridTaskCascade, MaskRCNN, TwoStageDetector

__all__ = ['CascadeRCNN', 'FasterRCNN', 'HybridTaskCascade', 'MaskRCNN', 'TwoStageDetector']
