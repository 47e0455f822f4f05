"""Second stage: what a proposal is, where exactly, and which pixels are its own."""
from .bbox_heads import BBoxHead, ConvFCBBoxHead, Shared2FCBBoxHead, Shared4Conv1FCBBoxHead
from .cascade_roi_head import CascadeRoIHead
from .htc_roi_head import HybridTaskCascadeRoIHead
from .legacy_roi_heads import LegacyCascadeRoIHead, LegacyHybridTaskCascadeRoIHead, LegacyStandardRoIHead
from .mask_heads import FCNMaskHead, FusedSemanticHead, HTCMaskHead
from .roi_extractors import LegacyRoIAlign, LegacySingleRoIExtractor, RoIAlign, SingleRoIExtractor
from .standard_roi_head import StandardRoIHead
from .torchvision_roi_head import TorchvisionRoIHead

__all__ = [
    'BBoxHead',
    'CascadeRoIHead',
    'ConvFCBBoxHead',
    'FCNMaskHead',
    'FusedSemanticHead',
    'HTCMaskHead',
    'HybridTaskCascadeRoIHead',
    'LegacyCascadeRoIHead',
    'LegacyHybridTaskCascadeRoIHead',
    'LegacyRoIAlign',
    'LegacySingleRoIExtractor',
    'LegacyStandardRoIHead',
    'RoIAlign',
    'Shared2FCBBoxHead',
    'Shared4Conv1FCBBoxHead',
    'SingleRoIExtractor',
    'StandardRoIHead',
    'TorchvisionRoIHead',
]
