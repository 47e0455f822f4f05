"""What a head needs to know which box is to learn what: anchors, box coders, assigners and samplers."""
from .anchor_generator import AnchorGenerator, LegacyAnchorGenerator, TorchvisionAnchorGenerator
from .bbox_coders import Box2BoxTransform, DeltaXYWHBBoxCoder, LegacyDeltaXYWHBBoxCoder
from .max_iou_assigner import Assignment, MaxIoUAssigner
from .samplers import PseudoSampler, RandomSampler, SampledRoIs

__all__ = [
    'AnchorGenerator',
    'Assignment',
    'Box2BoxTransform',
    'DeltaXYWHBBoxCoder',
    'LegacyAnchorGenerator',
    'LegacyDeltaXYWHBBoxCoder',
    'MaxIoUAssigner',
    'PseudoSampler',
    'RandomSampler',
    'SampledRoIs',
    'TorchvisionAnchorGenerator',
]
