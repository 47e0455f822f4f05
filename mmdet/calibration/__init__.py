"""Classifier calibration: re-train a frozen detector's classification on balanced proposals."""
from .attach import attach_calibrator, build_calibrator
from .calibration_model import CalibrationModel
from .calibrator import Calibrator
from .roi_selectors import DrawnClassSelector
from .simcal import SimCal

__all__ = [
    'CalibrationModel',
    'Calibrator',
    'DrawnClassSelector',
    'SimCal',
    'attach_calibrator',
    'build_calibrator',
]
