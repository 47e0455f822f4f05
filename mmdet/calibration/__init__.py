"""Classifier calibration: re-train a frozen detector's classification on balanced proposals."""
from .attach import attach_calibrator, build_calibrator
from .banked_calibration_model import BankedCalibrationModel
from .calibration_model import CalibrationModel
from .calibrator import Calibrator
from .feature_bank import FeatureBank, pack
from .roi_selectors import DrawnClassSelector
from .simcal import SimCal
from .views import View, Visit, share_views

__all__ = [
    'BankedCalibrationModel',
    'CalibrationModel',
    'Calibrator',
    'DrawnClassSelector',
    'FeatureBank',
    'SimCal',
    'View',
    'Visit',
    'attach_calibrator',
    'build_calibrator',
    'pack',
    'share_views',
]
