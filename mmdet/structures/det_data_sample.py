"""One image's annotations and predictions on their way through the code."""
from mmengine.structures import BaseDataElement, InstanceData


class DetDataSample(BaseDataElement):
    """Meta information, ground truth and predictions of one image.

    Meta fields: `img_id`, `img_path`, `ori_shape` and `img_shape` (height, width), `scale_factor`
    (width, height), `flip`, `flip_direction`, and in calibration `drawn_class` (label the image was
    drawn for) and `draw_key` (integers that key this draw's random numbers).

    `gt_instances` and `ignored_instances` hold `bboxes` (N, 4) float32 xyxy in pixels of the network
    input, `labels` (N,) int64 in 0..C-1, and `masks` (InstanceMasks, where loaded). `pred_instances` holds `bboxes`
    (in pixels of the original image where rescaled), `scores` (N,) float32, `labels`, and `masks`: a
    list of N COCO run-length encodings at the original image size.
    """

    def _set_instances(self, name: str, value: InstanceData) -> None:
        self.set_field(value, name, dtype=InstanceData)

    @property
    def gt_instances(self) -> InstanceData:
        return self._gt_instances

    @gt_instances.setter
    def gt_instances(self, value: InstanceData) -> None:
        self._set_instances('_gt_instances', value)

    @gt_instances.deleter
    def gt_instances(self) -> None:
        del self._gt_instances

    @property
    def ignored_instances(self) -> InstanceData:
        return self._ignored_instances

    @ignored_instances.setter
    def ignored_instances(self, value: InstanceData) -> None:
        self._set_instances('_ignored_instances', value)

    @ignored_instances.deleter
    def ignored_instances(self) -> None:
        del self._ignored_instances

    @property
    def pred_instances(self) -> InstanceData:
        return self._pred_instances

    @pred_instances.setter
    def pred_instances(self, value: InstanceData) -> None:
        self._set_instances('_pred_instances', value)

    @pred_instances.deleter
    def pred_instances(self) -> None:
        del self._pred_instances
