"""The ground truth of an evaluation set, packed image by image."""
import logging
import os
import pickle
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from hotcoco import mask as rle
from mmengine.logging import print_log

from mmdet.datasets.annotation_file import read_json_items
from mmdet.datasets.complaints import Complaints
from mmdet.datasets.run_lengths import compressed_counts
from mmdet.errors import AnnotationError
from mmdet.utils.garbage import collector_paused

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
IMAGE_LISTS = OPTIONAL_KEYS['images']
MARKS = OPTIONAL_KEYS['annotations']
NUMBERS = {int, float}

_in_use: WeakValueDictionary[tuple, 'GroundTruth'] = WeakValueDictionary()


def read_ground_truth(path: str | Path, with_masks: bool) -> 'GroundTruth':
    """The ground truth in `path`, read once however many metrics use it at a time.

    Args:
        path: a `.json`, `.json.gz` or `.json.zip` file in COCO or LVIS format.
        with_masks: whether masks are kept; without them annotations need no `segmentation`.

    Raises:
        AnnotationError: the file cannot be read or lacks what evaluation needs, or more than 1 % of its annotations
            cannot be used.
    """
    try:
        state = os.stat(path)
    except OSError:
        raise AnnotationError(f'{path}: no such annotation file; check ann_file') from None
    key = (os.path.realpath(path), state.st_mtime_ns, state.st_size, with_masks)
    ground_truth = _in_use.get(key)
    if ground_truth is None:
        with collector_paused():
            ground_truth = _in_use[key] = GroundTruth(path, with_masks)
    return ground_truth


class GroundTruth:
    """Categories, images and annotations of a file in COCO or LVIS format.

    Of each record the keys above are kept. Annotations lie in one `bytes` object per image, their masks run-length
    encoded, in a small part of the memory that their JSON takes as Python objects. A few annotations that cannot be
    used (of an unknown category or image, with NaN in its box, with a mask of another size, ...) are left out with one
    warning that counts them; of a mask only the polygons with NaN or fewer than 3 points are.

    Attributes:
        path: the file, for messages.
        with_masks: whether annotations have masks.
        categories: category id -> record, by ascending id.
        images: image id -> record.
        annotated_categories: ids of the categories that have annotations.
    """

    def __init__(self, path: str | Path, with_masks: bool):
        self.path = str(path)
        self.with_masks = with_masks
        self.categories: dict[int, dict[str, Any]] = {}
        self.images: dict[int, dict[str, Any]] = {}
        self.annotated_categories: set[int] = set()
        self._complaints = Complaints()
        num_annotations = 0
        pending: dict[int, list[bytes]] = defaultdict(list)
        for section, record in self._records():
            record = self._kept(section, record, with_masks)
            if section == 'categories':
                self._add_category(record)
            elif section == 'images':
                self._add_image(record)
            else:
                num_annotations += 1
                if self._is_usable(record):
                    # The image's size may come later in the file, so the mask stays as it is for now.
                    pending[record['image_id']].append(pickle.dumps(record))
        for section, number in (
            ('categories', len(self.categories)),
            ('images', len(self.images)),
            ('annotations', num_annotations),
        ):
            if not number:
                raise AnnotationError(f'{path}: lists no {section}, so it is no ground truth in COCO or LVIS format')
        self.categories = dict(sorted(self.categories.items()))
        self._pack(pending, with_masks)
        self._warn(num_annotations)

    def annotations(self, image_id: int) -> list[dict[str, Any]]:
        """The annotations of one image in the file's order; `segmentation` is a COCO run-length encoding."""
        return pickle.loads(self._packed[image_id]) if image_id in self._packed else []

    def _records(self) -> Iterator[tuple[str, Any]]:
        """The records of the sections that matter, with the name of their section, in the file's order."""
        for section, records in read_json_items(self.path, streamed=REQUIRED_KEYS):
            if section in REQUIRED_KEYS:
                if not isinstance(records, Iterator):
                    raise AnnotationError(f'{self.path}: "{section}" is not a list')
                for record in records:
                    yield section, record

    def _kept(self, section: str, record: Any, with_masks: bool) -> dict[str, Any]:
        if not isinstance(record, dict):
            raise AnnotationError(f'{self.path}: holds {str(record)[:40]!r} among its {section}')
        required = REQUIRED_KEYS[section] + ('segmentation',) * (section == 'annotations' and with_masks)
        for key in required:
            if key not in record:
                where = f'{section} record {record.get("id", str(record)[:40])}'
                raise AnnotationError(f"{self.path}: {where} has no '{key}', which evaluation needs")
        return {key: record[key] for key in (*required, *OPTIONAL_KEYS[section]) if key in record}

    def _add_category(self, category: dict[str, Any]) -> None:
        if not _is_id(category['id']):
            raise AnnotationError(f'{self.path}: a category has the id {_short(category["id"])}, which is no number')
        self.categories[category['id']] = category

    def _add_image(self, image: dict[str, Any]) -> None:
        if not _is_id(image['id']):
            raise AnnotationError(f'{self.path}: an image has the id {_short(image["id"])}, which is no number')
        if not all(_is_id(image[side]) and image[side] > 0 for side in ('height', 'width')):
            size = f'{_short(image["width"])}x{_short(image["height"])}'
            raise AnnotationError(f'{self.path}: image {image["id"]} is {size} pixels; mend its width and height')
        for key in IMAGE_LISTS:
            if key in image and not (isinstance(image[key], list) and all(map(_is_id, image[key]))):
                raise AnnotationError(
                    f'{self.path}: image {image["id"]} has the {key} {_short(image[key])}, which is no list of ids'
                )
        self.images[image['id']] = image

    def _is_usable(self, annotation: dict[str, Any]) -> bool:
        """Whether an annotation can be used as far as it shows by itself; brings its marks into one form."""
        box = annotation['bbox']
        if not (_is_id(annotation['id']) and _is_id(annotation['image_id']) and _is_id(annotation['category_id'])):
            kind = 'without usable id, image_id and category_id'
        elif not (isinstance(box, list) and len(box) == 4 and _are_finite(box)):
            kind = 'without a box of 4 numbers'
        elif not _are_finite([annotation['area']]):
            kind = 'without a usable area'
        else:
            annotation |= {mark: int(bool(annotation[mark])) for mark in MARKS if mark in annotation}
            return True
        self._complaints.add(kind, f'annotation {_short(annotation["id"])}')
        return False

    def _pack(self, pending: dict[int, list[bytes]], with_masks: bool) -> None:
        """Joins the annotations of each image that can be used."""
        self._packed: dict[int, bytes] = {}
        for image_id in self.images:
            annotations = [pickle.loads(annotation) for annotation in pending.pop(image_id, [])]
            annotations = [each for each in annotations if self._is_known(each)]
            if with_masks:
                annotations = [each for each in annotations if self._encode_mask(each)]
            if annotations:
                self._packed[image_id] = pickle.dumps(annotations)
                self.annotated_categories.update(annotation['category_id'] for annotation in annotations)
        for image_id, annotations in pending.items():
            for annotation in map(pickle.loads, annotations):
                self._complaints.add('of an unknown image', f'annotation {annotation["id"]}: image_id {image_id}')

    def _is_known(self, annotation: dict[str, Any]) -> bool:
        category_id = annotation['category_id']
        if category_id in self.categories:
            return True
        self._complaints.add('of an unknown category', f'annotation {annotation["id"]}: category_id {category_id}')
        return False

    def _encode_mask(self, annotation: dict[str, Any]) -> bool:
        """Run-length encodes the mask in place; says whether there is one to use."""
        segmentation = annotation['segmentation']
        height, width = (self.images[annotation['image_id']][key] for key in ('height', 'width'))
        item = f'annotation {annotation["id"]}'
        if isinstance(segmentation, dict):
            if not compressed_counts(segmentation, height, width):
                self._complaints.add('with an RLE that does not fit the image', item)
                return False
            annotation['segmentation'] = rle.frPyObjects(segmentation, height, width)
            return True
        if not isinstance(segmentation, list):
            self._complaints.add('with an unreadable segmentation', item)
            return False
        polygons = [polygon for polygon in segmentation if _is_polygon(polygon)]
        if not polygons:
            self._complaints.add('used with an empty mask, as no polygon has 3 points', item)
        elif len(polygons) < len(segmentation):
            self._complaints.add('used without a polygon that has NaN or fewer than 3 points', item)
        encoded = rle.frPyObjects(polygons or [[0.0] * 6], height, width)
        annotation['segmentation'] = encoded[0] if len(encoded) == 1 else rle.merge(encoded)
        return True

    def _warn(self, num_annotations: int) -> None:
        try:
            warning = self._complaints.summary(num_annotations)
        except AnnotationError as error:
            raise AnnotationError(f'{self.path}: {error}') from None
        if warning:
            print_log(f'{self.path}: {warning}', logger='current', level=logging.WARNING)


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _are_finite(values: Sequence[Any]) -> bool:
    """Whether all are numbers, and finite ones."""
    return NUMBERS.issuperset(map(type, values)) and _is_sum_finite(values)


def _is_polygon(polygon: Any) -> bool:
    """Whether it is a list x, y, x, y, ... of at least 3 points, all finite."""
    return isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0 and _is_sum_finite(polygon)


def _is_sum_finite(values: Sequence[Any]) -> bool:
    # The sum is finite only if every term is, and is had much faster than a look at each.
    try:
        return abs(sum(values)) <= sys.float_info.max
    except (TypeError, OverflowError):
        return False


def _short(value: Any) -> str:
    return str(value)[:40]
