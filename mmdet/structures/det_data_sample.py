"""One image's annotations and predictions on their way through the code."""
from mmengine.structures import BaseDataElement, InstanceData


def _instances(name: str, doc: str) -> property:
    """A data field that holds `InstanceData` and nothing else."""
    field = f'_{name}'
    return property(
        lambda sample: getattr(sample, field),
        lambda sample, value: sample.set_field(value, field, dtype=InstanceData),
        lambda sample: delattr(sample, field),
        doc,
    )


class DetDataSample(BaseDataElement):
    """Meta information, ground truth and predictions of one image.

    Meta fields: `img_id`, `img_path`, `ori_shape` and `img_shape` (height, width), `scale_factor`
    (width, height), `flip`, `flip_direction`, and in calibration `drawn_class` (label the image was
    drawn for) and `draw_key` (integers that key this draw's random numbers).

    Annotations hold `bboxes` (N, 4) float32 xyxy in pixels of the network input, `labels` (N,) int64 in 0..C-1, and
    `masks` (`InstanceMasks`) where they were loaded. Predictions hold `bboxes` (in pixels of the original image where
    rescaled), `scores` (N,) float32, `labels`, and `masks`: a list of N COCO run-length encodings at the original
    image size.
    """

    gt_instances = _instances('gt_instances', 'What the detector is to find.')
    ignored_instances = _instances('ignored_instances', 'Crowds and the like: neither to be found nor to be missed.')
    pred_instances = _instances('pred_instances', 'What the detector has found.')
