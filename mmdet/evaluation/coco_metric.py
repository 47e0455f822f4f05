"""The COCO protocol."""
from mmdet.registry import METRICS

from .proposals import PROPOSAL
from .streaming_metric import IOU_TYPES, StreamingMetric


@METRICS.register_module()
class CocoMetric(StreamingMetric):
    """The 12 figures of the official COCO evaluator and AP by training instances, for boxes and masks.

    The 100 best detections of a category on an image count; crowds take up detections without counting
    themselves. COCO-LT's bins are `bins=(1, 20, 400, 8000)`. Arguments, figures and errors: see `StreamingMetric`.

    `metric='proposal'` measures the recall of boxes whatever their class: `AR@100`, `AR@300`, `AR@1000`, and of small,
    medium and large objects `AR_s@1000`, `AR_m@1000`, `AR_l@1000`.
    """

    default_prefix = 'coco'
    lvis_style = False
    counts_empty = True
    metrics = (*IOU_TYPES, PROPOSAL)
    aliases = {'mAP': 'AP', 'mAP_50': 'AP50', 'mAP_75': 'AP75', 'mAP_s': 'APs', 'mAP_m': 'APm', 'mAP_l': 'APl'}
    figures = {name: name for name in ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl')} | {
        'AR@1': 'AR1', 'AR@10': 'AR10', 'AR@100': 'AR100', 'ARs@100': 'ARs', 'ARm@100': 'ARm', 'ARl@100': 'ARl'
    }  # fmt: skip
