"""Metrics: COCO's and LVIS's protocols, streamed, with AP by training instances."""
from .coco_metric import CocoMetric
from .legacy_metrics import LegacyCocoMetric, LegacyLVISMetric
from .lvis_metric import LVISMetric
from .results_file import write_per_class
from .training_instance_bins import average_precision_by_bin, training_instance_bins

__all__ = [
    'CocoMetric',
    'LVISMetric',
    'LegacyCocoMetric',
    'LegacyLVISMetric',
    'average_precision_by_bin',
    'training_instance_bins',
    'write_per_class',
]
