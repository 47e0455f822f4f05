"""A long-tail subset of a COCO-format training set, as COCO-LT is one of COCO (SimCal, sec. 5)."""
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mmdet.errors import ConfigError
from mmdet.utils.seeding import keyed_generator

from .annotation_file import check_name, write_json
from .conversion import read_coco


def power_law(source_counts: np.ndarray, head: int, tail: int) -> np.ndarray:
    """Instances to ask for: `head * rank ** -a`, the class with most instances first, `tail` for the last.

    Args:
        source_counts: (C,) instances there are; they say which class has which rank.
        head, tail: instances of the first and of the last class.

    Returns:
        (C,) int64.

    Raises:
        ConfigError: unless `head >= tail >= 1`.
    """
    if not head >= tail >= 1:
        raise ConfigError(f'a tail of {tail} below a head of {head} is asked for; give head >= tail >= 1')
    ranks = np.empty(len(source_counts))
    ranks[np.argsort(-source_counts, kind='stable')] = np.arange(1, len(source_counts) + 1)
    exponent = np.log(head / tail) / np.log(max(len(source_counts), 2))
    return np.maximum(np.round(head * ranks**-exponent), tail).astype(np.int64)


def choose_images(counts: np.ndarray, wanted: np.ndarray, seed: int = 0) -> np.ndarray:
    """Draw whole images, greedily, until every class has as nearly its wanted instances as co-occurrence allows.

    Images of the rarest classes are looked at first, in random order among equals, because they have the least choice.
    A first pass takes those that take no class beyond what is wanted, a second one those that bring more than they
    overshoot.

    Args:
        counts: (I, C) instances of each class in each image.
        wanted: (C,) instances of each class.
        seed: of the random order.

    Returns:
        Ascending indices of the chosen images.
    """
    rarest = np.where(counts > 0, wanted, np.iinfo(np.int64).max).min(axis=1)
    shuffled = keyed_generator(seed).permutation(len(counts))
    order = shuffled[np.argsort(rarest[shuffled], kind='stable')]
    missing = np.asarray(wanted, dtype=np.int64).copy()
    chosen = np.zeros(len(counts), dtype=bool)
    for may_overshoot in (False, True):
        for image in order[~chosen[order]]:
            gain = np.minimum(counts[image], np.maximum(missing, 0)).sum()
            overshoot = counts[image].sum() - gain
            if gain > overshoot if may_overshoot else gain and not overshoot:
                chosen[image] = True
                missing -= counts[image]
    return np.flatnonzero(chosen)


def write_long_tail_subset(
    source_json: str | Path,
    subset_json: str | Path,
    wanted: Mapping[str, int] | None = None,
    head: int = 8000,
    tail: int = 20,
    seed: int = 0,
) -> list[tuple[str, int, int]]:
    """Write a long-tail subset of COCO-format annotations: whole images with all their annotations.

    Args:
        source_json: the training annotations.
        subset_json: the file to write, .json or .json.gz.
        wanted: instances of each class by name; None is a power law between `head` and `tail`.
        head, tail: see `power_law`.
        seed: of the choice among images.

    Returns:
        For each class, most wanted first, its name, the instances wanted and the instances obtained.

    Raises:
        AnnotationError: the source is not in COCO format, or the result cannot be written.
        ConfigError: numbers that cannot be met, or names that are not the source's.
    """
    check_name(subset_json)
    source = read_coco(source_json)
    names = [category['name'] for category in source['categories']]
    counts = _instances(source)
    targets = power_law(counts.sum(axis=0), head, tail) if wanted is None else _by_name(names, wanted, source_json)
    chosen = choose_images(counts, targets, seed)

    images = [source['images'][i] for i in chosen]
    ids = {image['id'] for image in images}
    annotations = [annotation for annotation in source['annotations'] if annotation['image_id'] in ids]
    write_json(subset_json, dict(source, images=images, annotations=annotations))
    obtained = counts[chosen].sum(axis=0)
    return [(names[c], int(targets[c]), int(obtained[c])) for c in np.argsort(-targets, kind='stable')]


def _instances(source: Mapping) -> np.ndarray:
    """(I, C) annotations of each class in each image, crowds included, in the file's order."""
    places = {image['id']: i for i, image in enumerate(source['images'])}
    labels = {category['id']: label for label, category in enumerate(source['categories'])}
    counts = np.zeros((len(places), len(labels)), dtype=np.int64)
    where = [(places[a['image_id']], labels[a['category_id']]) for a in source['annotations']]
    np.add.at(counts, tuple(np.array(where, dtype=np.int64).reshape(-1, 2).T), 1)
    return counts


def _by_name(names: list[str], wanted: Mapping[str, int], source_json: str | Path) -> np.ndarray:
    different = sorted(set(names) ^ wanted.keys())
    if different:
        raise ConfigError(
            f'{source_json}: instances are to be given for its classes and no others; see {different[0]!r}'
        )
    return np.array([wanted[name] for name in names], dtype=np.int64)
