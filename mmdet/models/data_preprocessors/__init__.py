"""From images as loaded to the network's input."""
from .det_data_preprocessor import DetDataPreprocessor

__all__ = ['DetDataPreprocessor']
