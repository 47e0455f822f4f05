"""Between annotation formats."""
import logging
from collections import Counter, defaultdict
from pathlib import Path

from mmengine.logging import print_log

from mmdet.errors import AnnotationError

from .annotation_file import check_name, read_json, write_json
from .complaints import Complaints

RARE_UP_TO, COMMON_UP_TO = 10, 100
"""LVIS calls a class rare with at most 10 training images, common with at most 100, else frequent."""


def frequency_letter(image_count: int) -> str:
    """LVIS's 'r', 'c' or 'f' for a number of training images."""
    if image_count <= RARE_UP_TO:
        return 'r'
    return 'c' if image_count <= COMMON_UP_TO else 'f'


def coco_to_lvis(coco_json: str | Path, lvis_json: str | Path, train_json: str | Path | None = None) -> str:
    """Write COCO-format annotations in LVIS format.

    COCO is annotated exhaustively: in each image every absent class is negative, and only the classes with a crowd
    region are not exhaustively annotated. LVIS's evaluator does not know `iscrowd`, so that crowds get `ignore` too,
    which it does know. Annotations of unknown categories or images are left out with a warning that counts them.

    Args:
        coco_json: what to convert.
        lvis_json: the file to write, .json or .json.gz.
        train_json: annotations that the classes' counts and frequencies are taken from; by default `coco_json`.

    Returns:
        One line saying what was written.

    Raises:
        AnnotationError: a file is not in COCO format, more than 1 % of its annotations are of unknown categories or
            images, or the result cannot be written.
    """
    check_name(lvis_json)
    coco = read_coco(coco_json)
    train = read_coco(train_json) if train_json else coco
    classes_in, crowds_in = defaultdict(set), defaultdict(set)
    for annotation in coco['annotations']:
        classes_in[annotation['image_id']].add(annotation['category_id'])
        if annotation.get('iscrowd'):
            crowds_in[annotation['image_id']].add(annotation['category_id'])
    category_ids = sorted(category['id'] for category in coco['categories'])
    images = [
        image
        | dict(
            neg_category_ids=[i for i in category_ids if i not in classes_in[image['id']]],
            not_exhaustive_category_ids=sorted(crowds_in[image['id']]),
        )
        for image in coco['images']
    ]
    annotations = [record | dict(ignore=1) if record.get('iscrowd') else record for record in coco['annotations']]
    categories = _with_counts(coco['categories'], train['annotations'])
    write_json(lvis_json, coco | dict(images=images, annotations=annotations, categories=categories))
    letters = Counter(category['frequency'] for category in categories)
    return (
        f'{lvis_json}: {len(images)} images, {len(annotations)} annotations, {len(categories)} classes '
        f'({letters["r"]} rare, {letters["c"]} common, {letters["f"]} frequent)'
    )


def read_coco(path: str | Path) -> dict:
    """A COCO-format file whose annotations all are of categories and images that it lists.

    Annotations of others are left out with a warning that counts them.

    Raises:
        AnnotationError: it is not in COCO format, or more than 1 % of its annotations are of unknown ones.
    """
    content = read_json(path)
    expected = dict(images=['id'], annotations=['image_id', 'category_id'], categories=['id', 'name'])
    for key, fields in expected.items():
        records = content.get(key)
        if not isinstance(records, list):
            raise AnnotationError(f'{path}: has no list "{key}"; it is not a COCO annotation file')
        for position, record in enumerate(records):
            missing = [field for field in fields if not isinstance(record, dict) or field not in record]
            if missing:
                raise AnnotationError(f'{path}: record {position} of "{key}" has no {missing[0]}')
    content['annotations'] = _of_known(content, path)
    return content


def _of_known(content: dict, path: str | Path) -> list[dict]:
    """The annotations of categories and images that the file lists."""
    known = {}
    for key, field in (('categories', 'category_id'), ('images', 'image_id')):
        for position, record in enumerate(content[key]):
            if type(record['id']) is not int:
                given = str(record['id'])[:40]
                raise AnnotationError(f'{path}: record {position} of "{key}" has the id {given}, which is no number')
        known[field] = {record['id'] for record in content[key]}
    usable, complaints = [], Complaints()
    for annotation in content['annotations']:
        strange = [f for f in known if type(annotation[f]) is not int or annotation[f] not in known[f]]
        if strange:
            item = f'annotation {annotation.get("id")}: {strange[0]} {str(annotation[strange[0]])[:40]}'
            complaints.add(f'of an unknown {strange[0].removesuffix("_id")}', item)
        else:
            usable.append(annotation)
    try:
        warning = complaints.summary(len(content['annotations']))
    except AnnotationError as error:
        raise AnnotationError(f'{path}: {error}') from None
    if warning:
        print_log(f'{path}: {warning}', logger='current', level=logging.WARNING)
    return usable


def _with_counts(categories: list[dict], annotations: list[dict]) -> list[dict]:
    """LVIS category records; images and instances are counted with crowds."""
    instances = Counter(annotation['category_id'] for annotation in annotations)
    images = Counter(c for _, c in {(a['image_id'], a['category_id']) for a in annotations})
    return [
        dict(synset=category['name'], synonyms=[category['name']])
        | category
        | dict(
            frequency=frequency_letter(images[category['id']]),
            image_count=images[category['id']],
            instance_count=instances[category['id']],
        )
        for category in sorted(categories, key=lambda category: category['id'])
    ]
