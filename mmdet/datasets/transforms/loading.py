"""Loading an image and its annotations."""
import re

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine import fileio

from mmdet.errors import AnnotationError, ImageError
from mmdet.registry import TRANSFORMS
from mmdet.structures.masks import InstanceMasks

_JPEG, _JPEG_SCAN, _JPEG_END = b'\xff\xd8', 0xDA, b'\xff\xd9'
_jpeg_marker = re.compile(rb'\xff[\x01-\xfe]').search
_PNG, _PNG_END = b'\x89PNG', b'IEND'


@TRANSFORMS.register_module()
class LoadImageFromFile(BaseTransform):
    """Read and decode the image at `img_path`: sets `img` (H, W, 3) BGR, `img_shape` and `ori_shape` (H, W).

    The image is turned as its EXIF orientation says (unless `color_type` or the decoder ignores it), and must then have
    the `height` and `width` of its annotations, where these are known.

    Args:
        to_float32: decode to float32 instead of uint8.
        color_type: 'color', 'grayscale', 'unchanged', ...; see mmcv.imfrombytes.
        imdecode_backend: 'cv2', 'pillow', 'turbojpeg' or 'tifffile'.
        backend_args: for files that are not on a local disk; see mmengine.fileio.

    Raises:
        ImageError: the file is missing, cut short, not an image, or of another size than its annotations.
    """

    def __init__(
        self,
        to_float32: bool = False,
        color_type: str = 'color',
        imdecode_backend: str = 'cv2',
        backend_args: dict | None = None,
    ):
        self.to_float32 = to_float32
        self.color_type = color_type
        self.imdecode_backend = imdecode_backend
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Load one image."""
        path = results['img_path']
        img = read_image(path, self.color_type, self.imdecode_backend, self.backend_args)
        _check_size(path, img, results)
        results['img'] = img.astype(np.float32) if self.to_float32 else img
        results['img_shape'] = results['ori_shape'] = img.shape[:2]
        return results


@TRANSFORMS.register_module()
class LoadAnnotations(BaseTransform):
    """Turn `instances` into arrays, which geometric transforms then keep in step with the image.

    Sets `gt_bboxes` (N, 4) float32 xyxy in pixels, `gt_bboxes_labels` (N,) int64, `gt_ignore_flags` (N,) bool,
    `gt_masks` (InstanceMasks) and `gt_seg_map` (H, W) uint8, each where asked for.

    Args:
        with_bbox, with_label, with_mask, with_seg: what to load. An instance without a usable mask is ignored where
            masks are loaded. A semantic map is loaded where the data set has a `data_prefix` for it.
        poly2mask: rasterise masks at once, as mmdetection's `BitmapMasks`; False keeps polygons as they are, which is
            faster and finer.
        imdecode_backend, backend_args: for the semantic map.

    Raises:
        AnnotationError: a mask was annotated for another image size.
        ImageError: a semantic map that cannot be read, or is of another size or has several channels.
    """

    def __init__(
        self,
        with_bbox: bool = True,
        with_label: bool = True,
        with_mask: bool = False,
        with_seg: bool = False,
        poly2mask: bool = True,
        imdecode_backend: str = 'cv2',
        backend_args: dict | None = None,
    ):
        self.with_bbox = with_bbox
        self.with_label = with_label
        self.with_mask = with_mask
        self.with_seg = with_seg
        self.poly2mask = poly2mask
        self.imdecode_backend = imdecode_backend
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Load one image's annotations."""
        instances = results['instances']
        ignored = np.array([instance['ignore_flag'] for instance in instances], dtype=bool)
        if self.with_bbox:
            boxes = np.array([instance['bbox'] for instance in instances], dtype=np.float32)
            results['gt_bboxes'] = boxes.reshape(-1, 4)
        if self.with_label:
            results['gt_bboxes_labels'] = np.array([instance['bbox_label'] for instance in instances], dtype=np.int64)
        if self.with_mask:
            results['gt_masks'] = self._masks(results)
            ignored |= np.array(['mask' not in instance for instance in instances], dtype=bool)
        results['gt_ignore_flags'] = ignored
        if self.with_seg and 'seg_map_path' in results:
            results['gt_seg_map'] = self._semantic_map(results)
        return results

    def _semantic_map(self, results: dict) -> np.ndarray:
        path = results['seg_map_path']
        labels = read_image(path, 'unchanged', self.imdecode_backend, self.backend_args).squeeze()
        height, width = results.get('ori_shape', labels.shape[:2])
        if labels.shape != (height, width):
            found = 'x'.join(map(str, (labels.shape[1], labels.shape[0], *labels.shape[2:])))
            raise ImageError(
                f'{path}: a semantic map is one channel of labels as large as its image, here {width}x{height}; '
                f'this one is {found}'
            )
        return labels

    def _masks(self, results: dict) -> InstanceMasks:
        # Annotations are for the image as it lies; testing pipelines load them after resizing.
        height, width = results.get('ori_shape', (results['height'], results['width']))
        masks = [instance.get('mask', []) for instance in results['instances']]
        for mask in masks:
            if isinstance(mask, dict) and tuple(mask['size']) != (height, width):
                raise AnnotationError(
                    f'{results["img_path"]}: the image is {width}x{height}, but a mask of it was annotated at '
                    f'{mask["size"][1]}x{mask["size"][0]}'
                )
        masks = InstanceMasks(masks, height, width)
        return masks.rasterised() if self.poly2mask else masks


def read_image(path: str, color_type: str, backend: str, backend_args: dict | None) -> np.ndarray:
    """Decode an image file; (H, W, 3) BGR uint8 for `color_type` 'color'.

    Raises:
        ImageError: the file is missing, cut short, or not an image.
    """
    try:
        data = fileio.get(path, backend_args=backend_args)
    except FileNotFoundError:
        raise ImageError(f'{path}: no such image file; check data_root and data_prefix') from None
    except OSError as error:
        raise ImageError(f'{path}: cannot be read ({error.strerror or error})') from None
    if _is_cut_short(data):
        raise ImageError(f'{path}: the image file is cut short ({len(data)} bytes); fetch it again')
    try:
        img = mmcv.imfrombytes(data, flag=color_type, backend=backend)
    except Exception as error:
        # Each decoder has errors of its own.
        raise ImageError(f'{path}: cannot be decoded ({error})') from None
    if img is None:
        raise ImageError(f'{path}: not an image, or damaged')
    return img


def _check_size(path: str, img: np.ndarray, record: dict) -> None:
    height, width = img.shape[:2]
    if (record.get('height', height), record.get('width', width)) != (height, width):
        raise ImageError(
            f'{path}: the image is {width}x{height}, but was annotated at {record["width"]}x{record["height"]}; '
            f'fetch the right image or mend its record'
        )


def _is_cut_short(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end; decoders fill what is missing with grey and say nothing."""
    if data.startswith(_JPEG):
        return data.find(_JPEG_END, _jpeg_scan(data)) < 0
    return not data or data.startswith(_PNG) and _PNG_END not in data[-64:]


def _jpeg_scan(data: bytes) -> int:
    """Where the pixels of a JPEG begin, behind thumbnails and the like; the file's end where there are none.

    What follows the image's own end, such as a second image or a film, may hold anything.
    """
    position = len(_JPEG)
    while marker := _jpeg_marker(data, position):
        position = marker.end()
        if data[position - 1] == _JPEG_SCAN:
            return position
        position += int.from_bytes(data[position : position + 2], 'big')
    return len(data)
