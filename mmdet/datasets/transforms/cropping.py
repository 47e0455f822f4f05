"""Cropping an image together with its boxes and masks, and leaving out what is too small afterwards."""
from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform

from mmdet.errors import ConfigError
from mmdet.registry import TRANSFORMS

_ANNOTATIONS = ('gt_bboxes', 'gt_bboxes_labels', 'gt_ignore_flags', 'gt_masks')
_MOST_TRIES = 50


@TRANSFORMS.register_module()
class RandomCrop(BaseTransform):
    """Cut a rectangle out of the image, boxes, masks and semantic map; sets `img_shape` (H, W).

    Instances whose boxes lie outside go. An image that is smaller than the crop stays as it is.

    Args:
        crop_size: (width, height) in pixels, of an `'absolute_range'` (least, most) for both, otherwise shares of the
            image's sides in 0..1.
        crop_type: `'absolute'`; `'absolute_range'`: height and width are drawn between the least and the most;
            `'relative'`; `'relative_range'`: shares are drawn between `crop_size` and 1.
        allow_negative_crop: a crop may show no instance. Otherwise the place is drawn anew, up to 50 times, until it
            shows one; mmdetection takes another image instead.
        recompute_bbox: boxes become those around what is left of the masks.
        bbox_clip_border: clip boxes to the crop.

    Raises:
        ConfigError: an unknown `crop_type`, or a `crop_size` that does not fit it.
    """

    def __init__(
        self,
        crop_size: tuple[float, float],
        crop_type: str = 'absolute',
        allow_negative_crop: bool = False,
        recompute_bbox: bool = False,
        bbox_clip_border: bool = True,
    ):
        if crop_type not in ('absolute', 'absolute_range', 'relative', 'relative_range'):
            raise ConfigError(
                f'RandomCrop: crop_type {crop_type!r} is none of absolute, absolute_range, relative, relative_range'
            )
        in_pixels = crop_type.startswith('absolute')
        fits = all(length > 0 and (isinstance(length, int) if in_pixels else length <= 1) for length in crop_size)
        if not fits or len(crop_size) != 2 or crop_type == 'absolute_range' and crop_size[0] > crop_size[1]:
            raise ConfigError(f'RandomCrop: crop_size {tuple(crop_size)} does not fit crop_type {crop_type!r}')
        self.crop_size = crop_size
        self.crop_type = crop_type
        self.allow_negative_crop = allow_negative_crop
        self.recompute_bbox = recompute_bbox
        self.bbox_clip_border = bbox_clip_border

    def transform(self, results: dict) -> dict:
        """Crop one image."""
        rng = results['rng']
        height, width = results['img'].shape[:2]
        crop_height, crop_width = self._size(height, width, rng)
        crop_height, crop_width = max(min(crop_height, height), 1), max(min(crop_width, width), 1)
        negative_allowed = self.allow_negative_crop or not len(results.get('gt_bboxes', ()))
        for _ in range(_MOST_TRIES):
            top, left = int(rng.integers(height - crop_height + 1)), int(rng.integers(width - crop_width + 1))
            region = (left, top, left + crop_width, top + crop_height)
            if negative_allowed or self._inside(results['gt_bboxes'], region).any():
                break
        return self._cropped(results, region)

    def _size(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
        """The crop's height and width."""
        first, second = self.crop_size
        if self.crop_type == 'absolute':
            return second, first
        if self.crop_type == 'absolute_range':
            return tuple(
                int(rng.integers(min(length, first), min(length, second) + 1)) for length in (height, width)
            )
        share_of_height, share_of_width = second, first
        if self.crop_type == 'relative_range':
            share_of_height, share_of_width = (share + rng.random() * (1 - share) for share in self.crop_size)
        return int(height * share_of_height + 0.5), int(width * share_of_width + 0.5)

    @staticmethod
    def _inside(boxes: np.ndarray, region: tuple[int, int, int, int]) -> np.ndarray:
        """(N,) bool: the boxes that overlap the region."""
        left, top, right, bottom = region
        x1, y1, x2, y2 = boxes.T
        return (x1 < right) & (y1 < bottom) & (x2 > left) & (y2 > top)

    def _cropped(self, results: dict, region: tuple[int, int, int, int]) -> dict:
        left, top, right, bottom = region
        results['img'] = results['img'][top:bottom, left:right]
        results['img_shape'] = results['img'].shape[:2]
        if 'gt_seg_map' in results:
            results['gt_seg_map'] = results['gt_seg_map'][top:bottom, left:right]
        if 'gt_bboxes' in results:
            results = _kept(results, self._inside(results['gt_bboxes'], region))
            boxes = results['gt_bboxes'] - np.array([left, top, left, top], np.float32)
            if self.bbox_clip_border:
                boxes = np.clip(boxes, 0, np.array([right - left, bottom - top] * 2, np.float32))
            results['gt_bboxes'] = boxes
        if 'gt_masks' in results:
            results['gt_masks'] = results['gt_masks'].crop(region)
            if self.recompute_bbox:
                results['gt_bboxes'] = results['gt_masks'].bounding_boxes()
        return results


@TRANSFORMS.register_module()
class FilterAnnotations(BaseTransform):
    """Leave out instances that are too small. An image may be left without any, and is then all background.

    Args:
        min_gt_bbox_wh: boxes must be wider and higher than this (width, height), in pixels.
        min_gt_mask_area: masks must have this area at least, in pixels.
        by_box, by_mask: which of both to ask for.

    Raises:
        ConfigError: neither is asked for.
    """

    def __init__(
        self,
        min_gt_bbox_wh: Sequence[float] = (1, 1),
        min_gt_mask_area: float = 1,
        by_box: bool = True,
        by_mask: bool = False,
    ):
        if not (by_box or by_mask):
            raise ConfigError('FilterAnnotations: give by_box=True, by_mask=True or both')
        self.min_gt_bbox_wh = np.array(min_gt_bbox_wh)
        self.min_gt_mask_area = min_gt_mask_area
        self.by_box = by_box
        self.by_mask = by_mask

    def transform(self, results: dict) -> dict:
        """Filter one image's annotations."""
        keep = np.ones(len(results['gt_bboxes']), dtype=bool)
        if self.by_box:
            keep &= (results['gt_bboxes'][:, 2:] - results['gt_bboxes'][:, :2] > self.min_gt_bbox_wh).all(axis=1)
        if self.by_mask:
            keep &= results['gt_masks'].areas >= self.min_gt_mask_area
        return _kept(results, keep)


def _kept(results: dict, keep: np.ndarray) -> dict:
    """The image with those of its instances that the boolean array (N,) says."""
    return results | {key: results[key][keep] for key in _ANNOTATIONS if key in results}
