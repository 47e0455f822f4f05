"""From proposals to fixed-size feature maps."""
from .legacy import LegacyRoIAlign, LegacySingleRoIExtractor
from .roi_align import RoIAlign
from .single_level_roi_extractor import SingleRoIExtractor

__all__ = ['LegacyRoIAlign', 'LegacySingleRoIExtractor', 'RoIAlign', 'SingleRoIExtractor']
