"""From scores and mask probabilities to detections: suppression, and masks on the image."""
from .bbox_nms import BoxesOf, multiclass_nms, top_candidates
from .paste import paste_masks, paste_masks_to_rle
from .paste_legacy import paste_masks_legacy_to_rle
from .paste_torchvision import paste_masks_torchvision_to_rle
from .rle import RLE, rle_to_bitmaps

__all__ = [
    'RLE',
    'BoxesOf',
    'multiclass_nms',
    'paste_masks',
    'paste_masks_legacy_to_rle',
    'paste_masks_to_rle',
    'paste_masks_torchvision_to_rle',
    'rle_to_bitmaps',
    'top_candidates',
]
