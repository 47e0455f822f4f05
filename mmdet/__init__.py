"""SimCal: long-tail instance segmentation by classifier calibration, on mmdetection's conventions."""

__version__ = '1.0.0'
