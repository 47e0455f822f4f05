"""What travels between the rooms: data samples, class frequencies, boxes as plain tensors, instance masks."""
from .class_frequency import ClassFrequency
from .det_data_sample import DetDataSample

__all__ = ['ClassFrequency', 'DetDataSample']
