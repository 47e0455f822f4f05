"""Resizing, flipping and padding an image together with its boxes and masks."""
from collections.abc import Sequence

import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform

from mmdet.errors import ConfigError
from mmdet.registry import TRANSFORMS
from mmdet.structures.boxes import flip_boxes

Scale = tuple[int, int]


@TRANSFORMS.register_module()
class Resize(BaseTransform):
    """Resize the image, boxes, masks and semantic map; sets `img_shape` (H, W) and `scale_factor` (width, height).

    Args:
        scale: (width, height), or with `keep_ratio` the longer and shorter side to fit into, in either order.
        scale_factor: instead of `scale`: a factor, or two for (width, height).
        keep_ratio: keep the ratio of height to width.
        clip_object_border: clip boxes to the image.
        backend: 'cv2' or 'pillow'.
        interpolation: of the image; see mmcv.imresize. Bitmaps and semantic maps take the nearest pixel.
    """

    def __init__(
        self,
        scale: Scale | int | None = None,
        scale_factor: float | tuple[float, float] | None = None,
        keep_ratio: bool = False,
        clip_object_border: bool = True,
        backend: str = 'cv2',
        interpolation: str = 'bilinear',
    ):
        self.scale = (scale, scale) if isinstance(scale, int) else scale and tuple(scale)
        self.scale_factor = (scale_factor,) * 2 if isinstance(scale_factor, int | float) else scale_factor
        self.keep_ratio = keep_ratio
        self.clip_object_border = clip_object_border
        self.backend = backend
        self.interpolation = interpolation
        if scale is None and scale_factor is None:
            raise ConfigError('Resize: give scale or scale_factor')

    def transform(self, results: dict) -> dict:
        """Resize one image."""
        return self.resize(results, self.scale or self._scaled(results['img_shape']))

    def resize(self, results: dict, scale: Scale) -> dict:
        """Resize one image to `scale`, whatever the constructor was given."""
        old_height, old_width = results['img'].shape[:2]
        if self.keep_ratio:
            size = mmcv.rescale_size((old_width, old_height), tuple(scale))
        else:
            size = tuple(scale)
        width, height = size
        results['img'] = self.resize_image(results['img'], size)
        results['img_shape'] = (height, width)
        results['scale'] = scale
        results['scale_factor'] = (width / old_width, height / old_height)
        results['keep_ratio'] = self.keep_ratio
        if 'gt_bboxes' in results:
            boxes = results['gt_bboxes'] * np.array(results['scale_factor'] * 2, dtype=np.float32)
            if self.clip_object_border:
                boxes = np.clip(boxes, 0, np.array([width, height] * 2, dtype=np.float32))
            results['gt_bboxes'] = boxes
        if 'gt_masks' in results:
            results['gt_masks'] = results['gt_masks'].resize((height, width))
        if 'gt_seg_map' in results:
            results['gt_seg_map'] = mmcv.imresize(
                results['gt_seg_map'], size, interpolation='nearest', backend=self.backend
            )
        return results

    def resize_image(self, img: np.ndarray, size: Scale) -> np.ndarray:
        """The image (H, W, 3) at another (width, height)."""
        return mmcv.imresize(img, size, interpolation=self.interpolation, backend=self.backend)

    def _scaled(self, shape: tuple[int, int]) -> Scale:
        return tuple(int(length * factor + 0.5) for length, factor in zip(shape[::-1], self.scale_factor, strict=True))


@TRANSFORMS.register_module()
class RandomResize(BaseTransform):
    """Resize to a random scale.

    Args:
        scale: with `ratio_range` a (width, height) that is multiplied by a ratio drawn uniformly from the range;
            without it, two scales between which the width and the height are drawn.
        ratio_range: (least, most).
        resize_type: only 'Resize'.
        resize_kwargs: for `Resize`, e.g. keep_ratio.
    """

    def __init__(
        self,
        scale: Scale | Sequence[Scale],
        ratio_range: tuple[float, float] | None = None,
        resize_type: str = 'Resize',
        **resize_kwargs,
    ):
        self.scale = scale
        self.ratio_range = ratio_range
        self.resize = TRANSFORMS.build(dict(type=resize_type, scale=scale, **resize_kwargs))
        if ratio_range is None and isinstance(scale[0], int):
            raise ConfigError(f'RandomResize: scale {tuple(scale)} has no range; give ratio_range or two scales')

    def transform(self, results: dict) -> dict:
        """Resize one image."""
        return self.resize.resize(results, self._random_scale(results['rng']))

    def _random_scale(self, rng: np.random.Generator) -> Scale:
        if self.ratio_range is not None:
            ratio = rng.uniform(*self.ratio_range)
            return tuple(int(length * ratio) for length in self.scale)
        return tuple(int(rng.integers(min(ends), max(ends) + 1)) for ends in zip(*self.scale, strict=True))


@TRANSFORMS.register_module()
class RandomChoiceResize(BaseTransform):
    """Resize to one of several scales.

    Args:
        scales: to choose from, each (width, height).
        resize_type: only 'Resize'.
        resize_kwargs: for `Resize`, e.g. keep_ratio.
    """

    def __init__(self, scales: Sequence[Scale | int], resize_type: str = 'Resize', **resize_kwargs):
        self.scales = [(scale, scale) if isinstance(scale, int) else tuple(scale) for scale in scales]
        self.resize = TRANSFORMS.build(dict(type=resize_type, scale=self.scales[0], **resize_kwargs))

    def transform(self, results: dict) -> dict:
        """Resize one image."""
        return self.resize.resize(results, self.scales[results['rng'].integers(len(self.scales))])


@TRANSFORMS.register_module()
class RandomFlip(BaseTransform):
    """Mirror the image, boxes, masks and semantic map with some probability; sets `flip` and `flip_direction`.

    Args:
        prob: of flipping at all, shared evenly by the directions; or one for each direction.
        direction: 'horizontal', 'vertical' or 'diagonal', or several of them.
    """

    def __init__(self, prob: float | Sequence[float] = 0.5, direction: str | Sequence[str] = 'horizontal'):
        self.directions = [direction] if isinstance(direction, str) else list(direction)
        shared = isinstance(prob, int | float)
        self.probs = [prob / len(self.directions)] * len(self.directions) if shared else list(prob)
        if len(self.probs) != len(self.directions) or min(self.probs) < 0 or sum(self.probs) > 1:
            raise ConfigError(f'RandomFlip: prob {prob} does not fit the directions {self.directions}')

    def transform(self, results: dict) -> dict:
        """Flip one image, or not."""
        position = int(np.searchsorted(np.cumsum(self.probs), results['rng'].random(), side='right'))
        results['flip'] = position < len(self.directions)
        results['flip_direction'] = self.directions[position] if results['flip'] else None
        return _flipped(results, results['flip_direction']) if results['flip'] else results


def _flipped(results: dict, direction: str) -> dict:
    results['img'] = mmcv.imflip(results['img'], direction)
    if 'gt_bboxes' in results:
        boxes = torch.from_numpy(results['gt_bboxes'])
        results['gt_bboxes'] = flip_boxes(boxes, results['img_shape'], direction).numpy()
    if 'gt_masks' in results:
        results['gt_masks'] = results['gt_masks'].flip(direction)
    if 'gt_seg_map' in results:
        results['gt_seg_map'] = mmcv.imflip(results['gt_seg_map'], direction)
    return results


@TRANSFORMS.register_module()
class Pad(BaseTransform):
    """Pad the image, masks and semantic map at the right and lower edge; sets `pad_shape` and `img_shape` (H, W).

    Args:
        size: (width, height) to pad to; a side that is longer stays as it is; or
        size_divisor: pad to a multiple of it.
        pad_to_square: pad the shorter side to the longer one, and both to a multiple of `size_divisor` if given.
        pad_val: a value for all channels of the image, one for each, or dict(img=..., seg=...). Without another,
            semantic maps are padded with 255; masks are padded with 0.

    Raises:
        ConfigError: no size to pad to, or two; a `pad_val` for something else.
    """

    def __init__(
        self,
        size: Scale | None = None,
        size_divisor: int | None = None,
        pad_to_square: bool = False,
        pad_val: float | Sequence[float] | dict = 0,
    ):
        if (size is None) != (size_divisor is not None or pad_to_square):
            raise ConfigError('Pad: give either size, or size_divisor or pad_to_square')
        self.size = size
        self.size_divisor = size_divisor or 1
        self.pad_to_square = pad_to_square
        self.pad_val = dict(img=0, masks=0, seg=255) | (pad_val if isinstance(pad_val, dict) else dict(img=pad_val))
        if self.pad_val.keys() != {'img', 'masks', 'seg'} or self.pad_val['masks'] != 0:
            raise ConfigError(f'Pad: pad_val {pad_val} is for img and seg; masks are padded with 0')

    def transform(self, results: dict) -> dict:
        """Pad one image."""
        shape = self._padded_shape(*results['img'].shape[:2])
        value = self.pad_val['img']
        if not isinstance(value, Sequence) and results['img'].ndim == 3:
            value = [value] * results['img'].shape[2]
        results['img'] = mmcv.impad(
            results['img'], shape=shape, pad_val=tuple(value) if isinstance(value, Sequence) else value
        )
        results['img_shape'] = results['pad_shape'] = shape
        if 'gt_masks' in results:
            results['gt_masks'] = results['gt_masks'].pad(shape)
        if 'gt_seg_map' in results:
            results['gt_seg_map'] = mmcv.impad(results['gt_seg_map'], shape=shape, pad_val=self.pad_val['seg'])
        return results

    def _padded_shape(self, height: int, width: int) -> tuple[int, int]:
        if self.size is not None:
            return max(height, self.size[1]), max(width, self.size[0])
        if self.pad_to_square:
            height = width = max(height, width)
        return tuple(-(-length // self.size_divisor) * self.size_divisor for length in (height, width))
