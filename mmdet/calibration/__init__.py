"""Classifier calibration: correct a frozen detector's classification for classes that are rare."""
from .attach import attach_calibrator, build_calibrator
from .banked_calibration_model import BankedCalibrationModel
from .calibration_model import CalibrationModel
from .calibrator import Calibrator
from .calibrators import *  # noqa: F403
from .calibrators import __all__ as _calibrators
from .composition import ComposedCalibrator, ScoreRule
from .feature_bank import FeatureBank, pack
from .panel import Panel
from .roi_selectors import AllRoIsSelector, DrawnClassSelector, RoISelector
from .step_rois import StepRoIs
from .training_annotations import TrainingAnnotations
from .views import View, Visit, share_views, views_of_images

__all__ = [
    'AllRoIsSelector',
    'BankedCalibrationModel',
    'CalibrationModel',
    'Calibrator',
    'ComposedCalibrator',
    'DrawnClassSelector',
    'FeatureBank',
    'Panel',
    'RoISelector',
    'ScoreRule',
    'StepRoIs',
    'TrainingAnnotations',
    'View',
    'Visit',
    'attach_calibrator',
    'build_calibrator',
    'pack',
    'share_views',
    'views_of_images',
    *_calibrators,
]
