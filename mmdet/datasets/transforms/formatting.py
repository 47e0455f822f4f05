"""The last transform: from a dictionary of arrays to the tensors a detector takes."""
from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import InstanceData, PixelData

from mmdet.registry import TRANSFORMS
from mmdet.structures import DetDataSample

_DRAW_KEYS = ('draw_key', 'drawn_class')


@TRANSFORMS.register_module()
class PackDetInputs(BaseTransform):
    """Pack one image as `inputs` (3, H, W), of the image's own type, and `data_samples`, a `DetDataSample`.

    Args:
        meta_keys: what to keep as meta information, where it is known; what the image was drawn for always is.
    """

    def __init__(
        self,
        meta_keys: Sequence[str] = (
            'img_id',
            'img_path',
            'ori_shape',
            'img_shape',
            'scale_factor',
            'flip',
            'flip_direction',
        ),
    ):
        self.meta_keys = (*meta_keys, *_DRAW_KEYS)

    def transform(self, results: dict) -> dict:
        """Pack one image."""
        img = results['img'] if results['img'].ndim == 3 else results['img'][..., None]
        sample = DetDataSample(metainfo={key: results[key] for key in self.meta_keys if key in results})
        if 'gt_ignore_flags' in results:
            ignored = results['gt_ignore_flags']
            sample.gt_instances = _instances(results, np.flatnonzero(~ignored))
            sample.ignored_instances = _instances(results, np.flatnonzero(ignored))
        if 'gt_seg_map' in results:
            sample.gt_sem_seg = PixelData(sem_seg=torch.from_numpy(np.ascontiguousarray(results['gt_seg_map']))[None])
        return dict(inputs=torch.from_numpy(np.ascontiguousarray(img.transpose(2, 0, 1))), data_samples=sample)


def _instances(results: dict, chosen: np.ndarray) -> InstanceData:
    instances = InstanceData()
    if 'gt_bboxes' in results:
        instances.bboxes = torch.from_numpy(results['gt_bboxes'][chosen])
    if 'gt_bboxes_labels' in results:
        instances.labels = torch.from_numpy(results['gt_bboxes_labels'][chosen])
    if 'gt_masks' in results:
        instances.masks = results['gt_masks'][chosen]
    return instances
