"""The ground truth of an evaluation set, packed image by image."""
import logging
import math
import os
import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from hotcoco import mask as rle
from mmengine.logging import print_log

from mmdet.errors import AnnotationError

from .annotation_stream import stream_annotation_file

REQUIRED_KEYS = {
    'categories': ('id', 'name'),
    'images': ('id', 'height', 'width'),
    'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area'),
}
OPTIONAL_KEYS = {
    'categories': ('frequency',),
    'images': ('neg_category_ids', 'not_exhaustive_category_ids'),
    'annotations': ('iscrowd', 'ignore'),
}

_in_use: WeakValueDictionary[tuple, 'GroundTruth'] = WeakValueDictionary()


def read_ground_truth(path: str | Path, with_masks: bool) -> 'GroundTruth':
    """The ground truth in `path`, read once however many metrics use it at a time.

    Args:
        path: a `.json`, `.json.gz` or `.json.zip` file in COCO or LVIS format.
        with_masks: whether masks are kept; without them annotations need no `segmentation`.

    Raises:
        AnnotationError: the file cannot be read or lacks what evaluation needs.
    """
    try:
        state = os.stat(path)
    except OSError:
        raise AnnotationError(f'{path}: no such annotation file; check ann_file') from None
    key = (os.path.realpath(path), state.st_mtime_ns, state.st_size, with_masks)
    ground_truth = _in_use.get(key)
    if ground_truth is None:
        ground_truth = _in_use[key] = GroundTruth(path, with_masks)
    return ground_truth


class GroundTruth:
    """Categories, images and annotations of a file in COCO or LVIS format.

    Of each record the keys above are kept. Annotations lie in one `bytes` object per image, their masks run-length
    encoded, in a small part of the memory that their JSON takes as Python objects.

    Attributes:
        path: the file, for messages.
        categories: category id -> record, by ascending id.
        images: image id -> record.
    """

    def __init__(self, path: str | Path, with_masks: bool):
        self.path = str(path)
        self.categories: dict[int, dict[str, Any]] = {}
        self.images: dict[int, dict[str, Any]] = {}
        pending: dict[int, list[bytes]] = defaultdict(list)
        for section, record in stream_annotation_file(path):
            if section in REQUIRED_KEYS:
                record = self._kept(section, record, with_masks)
            if section == 'categories':
                self.categories[record['id']] = record
            elif section == 'images':
                self.images[record['id']] = record
            elif section == 'annotations':
                # The image's size may come later in the file, so the mask stays as it is for now.
                pending[record['image_id']].append(pickle.dumps(record))
        for section, records in (('categories', self.categories), ('images', self.images), ('annotations', pending)):
            if not records:
                raise AnnotationError(f'{path}: lists no {section}, so it is no ground truth in COCO or LVIS format')
        self.categories = dict(sorted(self.categories.items()))
        self._pack(pending, with_masks)

    def annotations(self, image_id: int) -> list[dict[str, Any]]:
        """The annotations of one image in the file's order; `segmentation` is a COCO run-length encoding."""
        return pickle.loads(self._packed[image_id]) if image_id in self._packed else []

    def _kept(self, section: str, record: Any, with_masks: bool) -> dict[str, Any]:
        if not isinstance(record, dict):
            raise AnnotationError(f'{self.path}: holds {str(record)[:40]!r} among its {section}')
        required = REQUIRED_KEYS[section] + ('segmentation',) * (section == 'annotations' and with_masks)
        for key in required:
            if key not in record:
                where = f'{section} record {record.get("id", str(record)[:40])}'
                raise AnnotationError(f"{self.path}: {where} has no '{key}', which evaluation needs")
        return {key: record[key] for key in (*required, *OPTIONAL_KEYS[section]) if key in record}

    def _pack(self, pending: dict[int, list[bytes]], with_masks: bool) -> None:
        """Joins the annotations of each image; those of images that the file does not list are left out."""
        self._packed: dict[int, bytes] = {}
        malformed = []
        for image_id in self.images:
            annotations = [pickle.loads(annotation) for annotation in pending.pop(image_id, [])]
            for annotation in annotations if with_masks else []:
                if not self._encode_mask(annotation):
                    malformed.append(annotation['id'])
            if annotations:
                self._packed[image_id] = pickle.dumps(annotations)
        if malformed:
            print_log(
                f'{self.path}: {len(malformed)} annotations (first: {malformed[0]}) have polygons with fewer than 3 '
                f'points or NaN, which are left out of their masks',
                logger='current',
                level=logging.WARNING,
            )

    def _encode_mask(self, annotation: dict[str, Any]) -> bool:
        """Run-length encodes the mask in place; says whether all its polygons were sound."""
        segmentation = annotation['segmentation']
        height, width = (self.images[annotation['image_id']][key] for key in ('height', 'width'))
        try:
            if isinstance(segmentation, dict):
                annotation['segmentation'] = rle.frPyObjects(segmentation, height, width)
                return True
            polygons = [polygon for polygon in segmentation if len(polygon) >= 6 and math.isfinite(sum(polygon))]
            annotation['segmentation'] = rle.merge(rle.frPyObjects(polygons or [[0.0] * 6], height, width))
            return len(polygons) == len(segmentation) > 0
        except (KeyError, TypeError, ValueError) as error:
            raise AnnotationError(
                f'{self.path}: annotation {annotation["id"]} has no readable mask ({error}); mend or remove it'
            ) from None
