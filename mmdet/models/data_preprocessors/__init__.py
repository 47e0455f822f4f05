"""From images as loaded to the network's input."""
from .batch_augments import BatchFixedSizePad
from .det_data_preprocessor import DetDataPreprocessor

__all__ = ['BatchFixedSizePad', 'DetDataPreprocessor']
