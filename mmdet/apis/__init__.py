"""What the tools and a notebook call."""
from .calibrate import calibrate
from .compare import compare
from .inference import inference_detector, init_detector
from .props_gt import props_gt
from .test import test
from .train import train

__all__ = ['calibrate', 'compare', 'inference_detector', 'init_detector', 'props_gt', 'test', 'train']
