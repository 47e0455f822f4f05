"""Training instances of every class, from annotations or from a file that has counted them already."""
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mmdet.datasets import CocoDataset, read_json
from mmdet.errors import AnnotationError
from mmdet.structures import ClassFrequency


class ClassCounts(NamedTuple):
    """Training counts and, where they are known, the categories they are of.

    Attributes:
        frequency: in label order.
        category_ids: of the annotation file, in label order; None where the counts file has no ids of one.
        named: whether the names in `frequency` are the classes' own; else they are their labels.
    """

    frequency: ClassFrequency
    category_ids: list[int] | None
    named: bool


def count_annotations(path: str | Path) -> ClassCounts:
    """Count a COCO- or LVIS-format training file, crowds included; labels follow the category ids.

    Raises:
        AnnotationError: it cannot be used.
    """
    dataset = CocoDataset(ann_file=str(path), test_mode=True)
    return ClassCounts(dataset.class_frequency(), list(dataset.metainfo['category_ids']), named=True)


def read_counts(path: str | Path) -> ClassCounts:
    """Counts from the `categories` of a JSON file, as LVIS's annotations have them.

    Each has an `instance_count`, and an `image_count` or its `image_ids`; and `id` and `name`, or only a number
    (`category_id`, `index`) that says its place. Labels follow these numbers.

    Args:
        path: .json, .json.gz or .json.zip.

    Raises:
        AnnotationError: the file cannot be read, or a category says no count.
    """
    categories = read_json(path).get('categories')
    if not isinstance(categories, list) or not categories:
        raise AnnotationError(f'{path}: has no list "categories" with an instance_count in each')
    for position, category in enumerate(categories):
        missing = _missing(category)
        if missing:
            raise AnnotationError(f'{path}: record {position} of "categories" has no {missing}')
    categories = sorted(categories, key=_place)
    named = all('name' in category for category in categories)
    frequency = ClassFrequency(
        [category['name'] if named else str(label) for label, category in enumerate(categories)],
        [category['instance_count'] for category in categories],
        [_image_count(category) for category in categories],
    )
    ids = [category['id'] for category in categories] if all('id' in category for category in categories) else None
    return ClassCounts(frequency, ids, named)


def _missing(category: object) -> str | None:
    """What a record of a counts file lacks."""
    if not isinstance(category, Mapping) or type(category.get('instance_count')) is not int:
        return 'instance_count'
    if type(category.get('image_count')) is not int and not isinstance(category.get('image_ids'), list):
        return 'image_count'
    return None if type(_place(category)) is int else 'id'


def _image_count(category: Mapping) -> int:
    return category['image_count'] if 'image_count' in category else len(category['image_ids'])


def _place(category: Mapping) -> int | None:
    """The number by which a category is ordered."""
    return category.get('id', category.get('category_id', category.get('index')))
