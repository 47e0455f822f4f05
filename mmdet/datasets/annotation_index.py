"""A COCO or LVIS annotation file as a few flat arrays, which all workers share."""
from array import array
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmengine.logging import print_log
from pycocotools import mask as coco_mask

from mmdet.errors import AnnotationError

from .annotation_file import read_json

IGNORED = 1
"""Flag of a crowd or `ignore` annotation: never a positive."""
NO_OBJECT = 2
"""Flag of an annotation whose box is not usable: counted in the class frequencies, otherwise left out."""
NO_MASK = 4
"""Flag of an annotation without a usable segmentation."""

_TOLERATED_SHARE = 0.01
_HUNDREDTHS = 100


@dataclass(frozen=True)
class AnnotationIndex:
    """Images and instances of one annotation file, without a Python object for any of them.

    N images, M instances and C categories; instances stand in the file's order, categories by ascending id.

    Attributes:
        path: of the file, for messages.
        category_ids: (C,) int64.
        category_names: C names.
        image_ids: (N,) int64.
        image_sizes: (N, 2) int32, height and width in pixels.
        image_names, image_urls: `file_name` and `coco_url` of each image, '' where the file has none.
        image_start: (N + 1,) int64; image i has the instances `by_image[image_start[i] : image_start[i + 1]]`.
        by_image: (M,) int64.
        category: (M,) int32, position among the categories.
        boxes: (M, 4) float32 xyxy in pixels.
        flags: (M,) uint8, of IGNORED, NO_OBJECT and NO_MASK.
        part_start: (M + 1,) int64; instance m has the polygons `part_start[m]` to `part_start[m + 1]`.
        point_start: (P + 1,) int64; polygon p has the points `point_start[p]` to `point_start[p + 1]`.
        points: (Q, 2) x, y: int32 in hundredths of a pixel where every coordinate is a whole number of them (as
            in COCO and LVIS), else float64 in pixels.
        rle_start: (M + 1,) int64; instance m has the compressed run lengths `rles[rle_start[m] : rle_start[m + 1]]`.
        rles: (B,) uint8.
    """

    path: str
    category_ids: np.ndarray
    category_names: tuple[str, ...]
    image_ids: np.ndarray
    image_sizes: np.ndarray
    image_names: 'Strings'
    image_urls: 'Strings'
    image_start: np.ndarray
    by_image: np.ndarray
    category: np.ndarray
    boxes: np.ndarray
    flags: np.ndarray
    part_start: np.ndarray
    point_start: np.ndarray
    points: np.ndarray
    rle_start: np.ndarray
    rles: np.ndarray

    def instances_of(self, image: int) -> np.ndarray:
        """Instances of an image, in the file's order."""
        return self.by_image[self.image_start[image] : self.image_start[image + 1]]

    def mask(self, instance: int, size: tuple[int, int]) -> list[np.ndarray] | dict | None:
        """Segmentation: polygons [(k, 2) float64] in pixels, or a compressed RLE of `size` (height, width), or None."""
        first, last = self.rle_start[instance : instance + 2]
        if last > first:
            return dict(size=list(size), counts=self.rles[first:last].tobytes())
        first, last = self.part_start[instance : instance + 2]
        bounds = self.point_start[first : last + 1]
        polygons = [self._points(*bounds[k : k + 2]) for k in range(last - first)]
        return polygons or None

    def _points(self, first: int, last: int) -> np.ndarray:
        points = self.points[first:last]
        # Division, not multiplication by 0.01: this gives the very float64 that the decimal in the file stands for.
        return points / _HUNDREDTHS if points.dtype == np.int32 else np.array(points)


class Strings:
    """Many strings in two arrays.

    Args:
        text: (B,) uint8, UTF-8.
        start: (N + 1,) int64; string i is `text[start[i] : start[i + 1]]`.
    """

    def __init__(self, text: np.ndarray, start: np.ndarray):
        self.text = text
        self.start = start

    @classmethod
    def pack(cls, strings: list[str]) -> 'Strings':
        """From a list of strings."""
        encoded = [string.encode() for string in strings]
        return cls(np.frombuffer(b''.join(encoded), np.uint8), _starts([len(string) for string in encoded]))

    def __len__(self) -> int:
        return len(self.start) - 1

    def __getitem__(self, i: int) -> str:
        return self.text[self.start[i] : self.start[i + 1]].tobytes().decode()


def read_annotation_index(path: str | Path) -> AnnotationIndex:
    """Read a COCO or LVIS annotation file.

    A record here and there that cannot be used (an unknown category or image, a box outside its image, a polygon with
    NaN or fewer than 3 points) is left out, and one warning counts them.

    Raises:
        AnnotationError: the file cannot be read, lacks what it must have, or more than 1 % of its annotations cannot
            be used.
    """
    path = str(path)
    content = read_json(path)
    categories = _categories(path, content)
    images = _images(path, content)
    return _IndexBuilder(path, categories, images).build(content.get('annotations', []))


@dataclass(frozen=True)
class _Images:
    ids: np.ndarray
    sizes: np.ndarray
    names: Strings
    urls: Strings


def _records(path: str, content: dict, key: str) -> list[dict]:
    records = content.get(key)
    if not isinstance(records, list):
        raise AnnotationError(f'{path}: has no list "{key}"; it is not a COCO or LVIS annotation file')
    return records


def _categories(path: str, content: dict) -> list[tuple[int, str]]:
    """(id, name) of the categories by ascending id."""
    records = _records(path, content, 'categories')
    try:
        categories = sorted((int(record['id']), str(record['name'])) for record in records)
    except (KeyError, TypeError, ValueError) as error:
        raise AnnotationError(f'{path}: a category lacks a usable {error}') from None
    for kind, values in (('id', [i for i, _ in categories]), ('name', [name for _, name in categories])):
        value, count = Counter(values).most_common(1)[0] if values else ('', 0)
        if count > 1:
            raise AnnotationError(f'{path}: {count} categories have the {kind} {value!r}')
    if not categories:
        raise AnnotationError(f'{path}: lists no categories')
    return categories


def _images(path: str, content: dict) -> _Images:
    records = _records(path, content, 'images')
    ids, sizes = [], []
    for position, record in enumerate(records):
        try:
            ids.append(int(record['id']))
            sizes.append((int(record['height']), int(record['width'])))
        except (KeyError, TypeError, ValueError) as error:
            raise AnnotationError(f'{path}: image record {position} lacks a usable {error}') from None
        if min(sizes[-1]) < 1:
            raise AnnotationError(f'{path}: image {ids[-1]} is {sizes[-1][1]}x{sizes[-1][0]} pixels')
        if not (record.get('file_name') or record.get('coco_url')):
            raise AnnotationError(f'{path}: image {ids[-1]} has neither file_name nor coco_url')
    if len(set(ids)) < len(ids):
        value, count = Counter(ids).most_common(1)[0]
        raise AnnotationError(f'{path}: {count} images have the id {value}')
    return _Images(
        np.array(ids, np.int64),
        np.array(sizes, np.int32).reshape(-1, 2),
        Strings.pack([record.get('file_name') or '' for record in records]),
        Strings.pack([record.get('coco_url') or '' for record in records]),
    )


class _IndexBuilder:
    """Turns annotation records into arrays, one record at a time, and keeps account of those that cannot be used."""

    def __init__(self, path: str, categories: list[tuple[int, str]], images: _Images):
        self.path = path
        self.categories = categories
        self.images = images
        self.position_of_category = {category_id: i for i, (category_id, _) in enumerate(categories)}
        self.position_of_image = {image_id: i for i, image_id in enumerate(images.ids.tolist())}
        self.image, self.category, self.flags = array('q'), array('i'), array('B')
        self.boxes, self.points = array('d'), array('d')
        self.parts_of_instance, self.points_of_part = array('q'), array('q')
        self.rles: list[bytes] = []
        self.annotation_ids: list = []
        self.complaints: Counter[str] = Counter()
        self.first_complaint = ''

    def build(self, records: list[dict]) -> AnnotationIndex:
        """Read all records; raises AnnotationError where too many cannot be used."""
        for record in records:
            self._add(record)
        image = np.array(self.image, np.int64)
        boxes = np.array(self.boxes).reshape(-1, 4)
        flags = np.array(self.flags, np.uint8)
        self._check_boxes(image, boxes, flags)
        self._report(len(records))
        names = tuple(name for _, name in self.categories)
        return AnnotationIndex(
            path=self.path,
            category_ids=np.array([category_id for category_id, _ in self.categories], np.int64),
            category_names=names,
            image_ids=self.images.ids,
            image_sizes=self.images.sizes,
            image_names=self.images.names,
            image_urls=self.images.urls,
            image_start=_starts(np.bincount(image, minlength=len(self.images.ids))),
            by_image=np.argsort(image, kind='stable'),
            category=np.array(self.category, np.int32),
            boxes=boxes.astype(np.float32),
            flags=flags,
            part_start=_starts(self.parts_of_instance),
            point_start=_starts(self.points_of_part),
            points=_compact(np.array(self.points).reshape(-1, 2)),
            rle_start=_starts([len(rle) for rle in self.rles]),
            rles=np.frombuffer(b''.join(self.rles), np.uint8),
        )

    def _add(self, record: dict) -> None:
        try:
            annotation_id = record.get('id')
            category = self.position_of_category.get(record['category_id'])
            image = self.position_of_image.get(record['image_id'])
            x, y, width, height = map(float, record['bbox'])
            empty = float(record.get('area', 1)) <= 0
        except (KeyError, TypeError, ValueError, AttributeError):
            self._complain('without usable category_id, image_id and bbox', str(record)[:80])
            return
        if category is None:
            self._complain('of an unknown category', f'annotation {annotation_id}: category_id {record["category_id"]}')
            return
        if image is None:
            self._complain('of an unknown image', f'annotation {annotation_id}: image_id {record["image_id"]}')
            return
        ignored = bool(record.get('iscrowd') or record.get('ignore'))
        has_mask = self._add_mask(record.get('segmentation'), image, annotation_id)
        self.annotation_ids.append(annotation_id)
        self.image.append(image)
        self.category.append(category)
        self.boxes.extend((x, y, x + width, y + height))
        self.flags.append(IGNORED * ignored | NO_OBJECT * empty | NO_MASK * (not has_mask))

    def _add_mask(self, segmentation, image: int, annotation_id) -> bool:
        """Keep the usable part of a segmentation; whether there is any."""
        parts, rle = 0, b''
        if isinstance(segmentation, list):
            for polygon in segmentation:
                parts += self._add_polygon(polygon, annotation_id)
        elif isinstance(segmentation, dict):
            rle = self._encode_rle(segmentation, image, annotation_id)
        elif segmentation is not None:
            self._complain('with an unreadable mask', f'annotation {annotation_id}: {str(segmentation)[:40]}')
        self.parts_of_instance.append(parts)
        self.rles.append(rle)
        return bool(parts or rle)

    def _add_polygon(self, polygon, annotation_id) -> bool:
        first = len(self.points)
        try:
            self.points.extend(polygon)
        except TypeError:
            usable = False
        else:
            count = len(self.points) - first
            # A sum is finite where every term is, at a fraction of the time of looking at each.
            usable = count >= 6 and count % 2 == 0 and abs(sum(polygon)) < float('inf')
        if not usable:
            del self.points[first:]
            self._complain('with a polygon that has NaN or fewer than 3 points', f'annotation {annotation_id}')
            return False
        self.points_of_part.append(count // 2)
        return True

    def _encode_rle(self, rle: dict, image: int, annotation_id) -> bytes:
        """The compressed run lengths of a compressed or uncompressed RLE; b'' where it cannot be used."""
        height, width = self.images.sizes[image].tolist()
        try:
            counts = rle['counts']
            if list(rle['size']) != [height, width]:
                raise ValueError
            if isinstance(counts, list):
                if sum(counts) != height * width or min(counts) < 0:
                    raise ValueError
                return coco_mask.frPyObjects(rle, height, width)['counts']
            counts = counts.encode() if isinstance(counts, str) else counts
            coco_mask.area(dict(size=[height, width], counts=counts))
            return counts
        except (KeyError, TypeError, ValueError):
            self._complain('with an RLE that does not fit the image', f'annotation {annotation_id}')
            return b''

    def _check_boxes(self, image: np.ndarray, boxes: np.ndarray, flags: np.ndarray) -> None:
        """Flag boxes that cover no pixel of their image; those thinner than a pixel are common, and only left out."""
        height, width = self.images.sizes[image].T
        x1, y1, x2, y2 = boxes.T
        outside = ~((np.minimum(x2, width) > np.maximum(x1, 0)) & (np.minimum(y2, height) > np.maximum(y1, 0)))
        thin = ~((x2 - x1 >= 1) & (y2 - y1 >= 1))
        flags[outside | thin] |= NO_OBJECT
        for m in np.flatnonzero(outside & ~thin):
            self._complain(
                'with a box outside its image',
                f'annotation {self.annotation_ids[m]}: {boxes[m].tolist()} in {width[m]}x{height[m]}',
            )

    def _complain(self, kind: str, item: str) -> None:
        self.first_complaint = self.first_complaint or f'{item} ({kind})'
        self.complaints[kind] += 1

    def _report(self, num_records: int) -> None:
        if not self.complaints:
            return
        bad = self.complaints.total()
        kinds = ', '.join(f'{count} {kind}' for kind, count in self.complaints.most_common())
        message = (
            f'{self.path}: {bad} of {num_records} annotations cannot be used: {kinds}; first: {self.first_complaint}'
        )
        if bad > _TOLERATED_SHARE * num_records:
            raise AnnotationError(message)
        print_log(f'{message}. Left out.', logger='current', level=30)


def _starts(lengths) -> np.ndarray:
    """Where each of several runs begins in their concatenation, and where the last ends: int64."""
    return np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=np.int64))])


def _compact(points: np.ndarray) -> np.ndarray:
    """Points in hundredths of a pixel as int32, where that loses nothing."""
    hundredths = np.round(points * _HUNDREDTHS)
    if np.abs(hundredths).max(initial=0) < 2**31 and np.array_equal(hundredths / _HUNDREDTHS, points):
        return hundredths.astype(np.int32)
    return points
