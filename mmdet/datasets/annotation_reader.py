"""From the JSON of a COCO or LVIS annotation file to its index, with an account of what cannot be used."""
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mmdet.errors import AnnotationError
from mmdet.utils.garbage import collector_paused

from .annotation_file import read_json_items
from .annotation_index import CROWD, HUNDREDTHS, LEFT_OUT, NO_MASK, NO_OBJECT, AnnotationIndex, Strings, starts
from .complaints import Complaints
from .run_lengths import compressed_counts

_CHUNK = 1 << 21


def index_annotations(path: str | Path) -> AnnotationIndex:
    """Read a COCO or LVIS annotation file.

    A record here and there that cannot be used (an unknown category or image, a box outside its image, a polygon with
    NaN or fewer than 3 points) is left out and counted in the index's `warning`.

    Raises:
        AnnotationError: the file cannot be read, lacks what it must have, or more than 1 % of its annotations cannot
            be used.
    """
    content = {}
    instances = _InstanceReader()
    with collector_paused():
        for key, value in read_json_items(path, streamed=['annotations']):
            if key != 'annotations':
                content[key] = value
            elif isinstance(value, Iterator):
                instances.read(value)
            else:
                raise AnnotationError(f'{path}: "annotations" is not a list')
    try:
        return _assemble(_categories(content), _images(content), instances)
    except AnnotationError as error:
        raise AnnotationError(f'{path}: {error}') from None


def _records(content: dict, key: str) -> list[dict]:
    records = content.get(key)
    if not isinstance(records, list):
        raise AnnotationError(f'has no list "{key}"; it is not a COCO or LVIS annotation file')
    return records


def _categories(content: dict) -> dict[int, str]:
    """Names of the categories by ascending id."""
    records = _records(content, 'categories')
    try:
        categories = sorted((_whole_number(record['id']), str(record['name'])) for record in records)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise AnnotationError(f'a category lacks a usable {error}') from None
    if not categories:
        raise AnnotationError('lists no categories')
    _check_unique('categories', 'id', [category_id for category_id, _ in categories])
    _check_unique('categories', 'name', [name for _, name in categories])
    return dict(categories)


def _images(content: dict) -> dict[str, np.ndarray | Strings]:
    """The image fields of the index."""
    records = _records(content, 'images')
    ids, sizes = [], []
    for position, record in enumerate(records):
        try:
            ids.append(_whole_number(record['id']))
            sizes.append((_whole_number(record['height'], 32), _whole_number(record['width'], 32)))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise AnnotationError(f'image record {position} lacks a usable {error}') from None
        if min(sizes[-1]) < 1:
            raise AnnotationError(f'image {ids[-1]} is {sizes[-1][1]}x{sizes[-1][0]} pixels')
        if not (record.get('file_name') or record.get('coco_url')):
            raise AnnotationError(f'image {ids[-1]} has neither file_name nor coco_url')
        for key in ('file_name', 'coco_url'):
            if not isinstance(record.get(key) or '', str):
                raise AnnotationError(f'image {ids[-1]} has the {key} {str(record[key])[:80]}, which is no text')
    _check_unique('images', 'id', ids)
    return dict(
        image_ids=np.array(ids, np.int64),
        image_sizes=np.array(sizes, np.int32).reshape(-1, 2),
        image_names=Strings.pack([record.get('file_name') or '' for record in records]),
        image_urls=Strings.pack([record.get('coco_url') or '' for record in records]),
    )


def _whole_number(value, bits: int = 64) -> int:
    """As an integer of so many bits; OverflowError where it does not fit."""
    number = int(value)
    if number.bit_length() >= bits:
        raise OverflowError(f'number below 2^{bits - 1}: it is {str(value)[:40]}')
    return number


def _check_unique(what: str, key: str, values: list) -> None:
    if len(set(values)) < len(values):
        value, count = Counter(values).most_common(1)[0]
        raise AnnotationError(f'{count} {what} have the {key} {value!r}')


class _InstanceReader:
    """Gathers annotation records, one after another, in flat arrays.

    Images and categories may come later in the file than the annotations, so that ids are looked up at the end.
    """

    def __init__(self):
        self.num_records = 0
        self.annotation_ids: list = []
        self.category_ids, self.image_ids = array('q'), array('q')
        self.boxes, self.flags = array('d'), array('B')
        self.num_parts, self.part_lengths = array('q'), array('q')
        self.points = _PointStore()
        self.encoded: dict[int, dict] = {}
        self.complaints = Complaints()
        self.complained_of: set[int] = set()

    def __len__(self) -> int:
        return len(self.flags)

    def read(self, records) -> None:
        """Gather records."""
        for record in records:
            self.num_records += 1
            self._add(record)

    def complain(self, m: int, kind: str, detail: str = '') -> None:
        """Count instance m as one that cannot be used, whatever else has been said of it."""
        if m not in self.complained_of:
            self.complained_of.add(m)
            self.complaints.add(kind, f'annotation {self.annotation_ids[m]}{detail}')

    def _add(self, record: dict) -> None:
        try:
            category_id, image_id = _whole_number(record['category_id']), _whole_number(record['image_id'])
            x, y, width, height = map(float, record['bbox'])
            empty = float(record.get('area', 1)) <= 0
            annotation_id = record.get('id')
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            self.complaints.add('without usable category_id, image_id and bbox', str(record)[:80])
            return
        marks = CROWD * bool(record.get('iscrowd')) | LEFT_OUT * bool(record.get('ignore'))
        self.annotation_ids.append(annotation_id)
        has_mask = self._add_mask(record.get('segmentation'))
        self.category_ids.append(category_id)
        self.image_ids.append(image_id)
        self.boxes.extend((x, y, x + width, y + height))
        self.flags.append(marks | NO_OBJECT * empty | NO_MASK * (not has_mask))

    def _add_mask(self, segmentation) -> bool:
        """Keep what is usable of the newest instance's segmentation; whether anything is."""
        num_parts = 0
        if isinstance(segmentation, list):
            for polygon in segmentation:
                num_points = self.points.add(polygon)
                if num_points:
                    self.part_lengths.append(num_points)
                    num_parts += 1
            if num_parts < len(segmentation):
                used = 'used without' if num_parts else 'with'
                self.complain(len(self), f'{used} a polygon that has NaN or fewer than 3 points')
        elif isinstance(segmentation, dict):
            self.encoded[len(self)] = segmentation
        elif segmentation is not None:
            self.complain(len(self), 'with an unreadable segmentation')
        self.num_parts.append(num_parts)
        return num_parts > 0 or isinstance(segmentation, dict)


class _PointStore:
    """Points of polygons, kept in hundredths of a pixel as int32 as long as that loses nothing."""

    def __init__(self):
        self.fresh = array('d')
        self.chunks: list[np.ndarray] = []

    def add(self, polygon) -> int:
        """Append a polygon [x, y, x, y, ...]; its number of points, or 0 if it cannot be used and was not appended."""
        if len(self.fresh) > _CHUNK:
            self._pack()
        first = len(self.fresh)
        try:
            self.fresh.fromlist(polygon)
            count = len(self.fresh) - first
            # The sum is finite only if every term is, and is had much faster than a look at each.
            if count >= 6 and count % 2 == 0 and abs(sum(polygon)) < float('inf'):
                return count // 2
        except (TypeError, OverflowError):
            pass
        del self.fresh[first:]
        return 0

    def all(self) -> np.ndarray:
        """(Q, 2) int32 in hundredths of a pixel, or float64 in pixels."""
        self._pack()
        if any(chunk.dtype != np.int32 for chunk in self.chunks):
            self.chunks = [chunk / HUNDREDTHS if chunk.dtype == np.int32 else chunk for chunk in self.chunks]
        return np.concatenate(self.chunks)

    def _pack(self) -> None:
        points = np.array(self.fresh, dtype=np.float64).reshape(-1, 2)
        hundredths = np.round(points * HUNDREDTHS)
        exact = np.abs(hundredths).max(initial=0) < 2**31 and np.array_equal(hundredths / HUNDREDTHS, points)
        self.chunks.append(hundredths.astype(np.int32) if exact else points)
        self.fresh = array('d')


def _assemble(categories: dict[int, str], images: dict, instances: _InstanceReader) -> AnnotationIndex:
    """Look ids up, check boxes and RLEs against their images, and order the instances by image."""
    category_ids = np.array(list(categories), np.int64)
    category = _positions(np.array(instances.category_ids), category_ids)
    image = _positions(np.array(instances.image_ids), images['image_ids'])
    for what, ids, position in (
        ('category', instances.category_ids, category),
        ('image', instances.image_ids, image),
    ):
        for m in np.flatnonzero(position < 0):
            instances.complain(m, f'of an unknown {what}', f': {what}_id {ids[m]}')

    boxes = np.array(instances.boxes, np.float64).reshape(-1, 4)
    flags = np.array(instances.flags, np.uint8)
    known = (category >= 0) & (image >= 0)
    flags[_unusable(boxes, images['image_sizes'][image], known, instances)] |= NO_OBJECT
    rles = _compress(instances, images['image_sizes'][image], known, flags)

    part_bounds, rle_bounds = starts(instances.num_parts), starts([len(rle) for rle in rles])
    order = np.flatnonzero(known)
    order = order[np.argsort(image[order], kind='stable')]
    return AnnotationIndex(
        warning=instances.complaints.summary(instances.num_records),
        category_names=Strings.pack(list(categories.values())),
        category_ids=category_ids,
        **images,
        first_instance=starts(np.bincount(image[order], minlength=len(images['image_ids']))),
        category=category[order].astype(np.int32),
        boxes=boxes[order].astype(np.float32),
        flags=flags[order],
        parts=np.stack([part_bounds[order], part_bounds[order + 1]], axis=1),
        first_point=starts(instances.part_lengths),
        points=instances.points.all(),
        rle_bytes=np.stack([rle_bounds[order], rle_bounds[order + 1]], axis=1),
        rles=np.frombuffer(b''.join(rles), np.uint8),
    )


def _positions(ids: np.ndarray, among: np.ndarray) -> np.ndarray:
    """(M,) int64, where each id stands in `among`; -1 where it does not."""
    if not len(among):
        return np.full(len(ids), -1)
    order = np.argsort(among)
    position = order[np.minimum(np.searchsorted(among, ids, sorter=order), len(among) - 1)]
    return np.where(among[position] == ids, position, -1)


def _unusable(boxes: np.ndarray, sizes: np.ndarray, known: np.ndarray, instances: _InstanceReader) -> np.ndarray:
    """(M,) bool: boxes that cover no pixel of their image, or are thinner than one, which is common in COCO."""
    x1, y1, x2, y2 = boxes.T
    height, width = sizes.T
    inside = (np.minimum(x2, width) > np.maximum(x1, 0)) & (np.minimum(y2, height) > np.maximum(y1, 0))
    thick = (x2 - x1 >= 1) & (y2 - y1 >= 1)
    thin = (x2 - x1 < 1) | (y2 - y1 < 1)
    for m in np.flatnonzero(known & ~inside & ~thin):
        corners = ', '.join(f'{corner:g}' for corner in boxes[m])
        detail = f': x1, y1, x2, y2 = {corners} in {width[m]}x{height[m]}'
        instances.complain(m, 'with a box outside its image', detail)
    return ~(inside & thick)


def _compress(instances: _InstanceReader, sizes: np.ndarray, known: np.ndarray, flags: np.ndarray) -> list[bytes]:
    """Compressed run lengths of each instance, b'' where it has none; flags those that do not fit their image."""
    rles = [b''] * len(instances)
    for m, rle in instances.encoded.items():
        if known[m]:
            rles[m] = compressed_counts(rle, *sizes[m].tolist())
            if not rles[m]:
                flags[m] |= NO_MASK
                instances.complain(m, 'with an RLE that does not fit the image')
    return rles
