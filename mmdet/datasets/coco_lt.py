"""COCO-LT, the long-tail subset of COCO train2017 of the SimCal paper."""
from mmdet.registry import DATASETS

from .coco import CocoDataset


@DATASETS.register_module()
class CocoLTDataset(CocoDataset):
    """COCO-LT: COCO's format, categories and images, with far fewer annotations of most classes."""
