"""Metrics: COCO's and LVIS's protocols, streamed, with AP by training instances."""
from .class_groups import ClassGroups
from .coco_metric import CocoMetric
from .federated_truth import FederatedTruth
from .ground_truth import read_ground_truth
from .image_overlaps import ImageOverlaps, Matches
from .legacy_metrics import LegacyCocoMetric, LegacyLVISMetric
from .lvis_metric import LVISMetric
from .match_table import MatchTable
from .reliability import CalibrationError, calibration_error
from .resampling import Interval, bootstrap
from .results_file import write_per_class
from .training_instance_bins import average_precision_by_bin, training_instance_bins

__all__ = [
    'CalibrationError',
    'ClassGroups',
    'CocoMetric',
    'FederatedTruth',
    'ImageOverlaps',
    'Interval',
    'LVISMetric',
    'LegacyCocoMetric',
    'LegacyLVISMetric',
    'MatchTable',
    'Matches',
    'average_precision_by_bin',
    'bootstrap',
    'calibration_error',
    'read_ground_truth',
    'training_instance_bins',
    'write_per_class',
]
