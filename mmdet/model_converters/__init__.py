"""Other people's detectors: from their files to this project's, name by name."""
from .class_counts import count_annotations, read_counts
from .mmdet_legacy import upgrade_mmdet
from .simcal_release import convert_simcal_release

__all__ = ['convert_simcal_release', 'count_annotations', 'read_counts', 'upgrade_mmdet']
