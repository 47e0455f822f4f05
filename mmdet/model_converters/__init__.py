"""Other people's detectors: from their files to this project's, name by name."""
from .class_counts import count_annotations, read_counts
from .class_names import read_class_names
from .detectron2_detector import convert_detectron2
from .mmdet_legacy import upgrade_mmdet
from .simcal_release import convert_simcal_release
from .torchvision_detector import convert_torchvision

__all__ = [
    'convert_detectron2',
    'convert_simcal_release',
    'convert_torchvision',
    'count_annotations',
    'read_class_names',
    'read_counts',
    'upgrade_mmdet',
]
