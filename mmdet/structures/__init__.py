"""What travels between the rooms: data samples, boxes as plain tensors, instance masks."""
from .det_data_sample import DetDataSample

__all__ = ['DetDataSample']
