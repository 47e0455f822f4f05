"""Masks that cannot match anything need not be compared with anything."""
from collections.abc import Sequence
from typing import Any

import numpy as np
from hotcoco import mask as rle

STAND_IN = {'size': [1, 1], 'counts': [1]}
"""The run-length encoding of a mask without hope: of another size than any target, it is compared with no pixel."""

_LARGEST_AREA = 1 << 34


def may_match(
    image_ids: np.ndarray, category_ids: np.ndarray, areas: np.ndarray, targets: Sequence[dict[str, Any]]
) -> np.ndarray:
    """Which masks may have an IoU of 0.5, the lowest threshold there is, with a target of their image and category.

    IoU is at most the ratio of the areas, so that a target must have between half and twice the mask's pixels. A crowd
    takes up masks by another overlap than IoU, and leaves hope to all.

    Args:
        image_ids: (N,).
        category_ids: (N,).
        areas: (N,) integers, in pixels.
        targets: annotations, `segmentation` a COCO run-length encoding.

    Returns:
        (N,) bool, False only where there is no match.
    """
    if not targets:
        return np.zeros(len(areas), bool)
    target_images = np.array([target['image_id'] for target in targets])
    target_categories = np.array([target['category_id'] for target in targets])
    known_images, known_categories = np.unique(target_images), np.unique(target_categories)

    def group(images: np.ndarray, categories: np.ndarray) -> np.ndarray:
        # An id that no target has shares the number of another. That gives hope for nothing, and takes none.
        number = np.searchsorted(known_images, images) * (len(known_categories) + 1)
        return number + np.searchsorted(known_categories, categories)

    areas = areas.astype(np.int64)
    groups, target_groups = group(image_ids, category_ids), group(target_images, target_categories)
    target_areas = rle.area([target['segmentation'] for target in targets]).astype(np.int64)
    ordered = np.sort(target_groups * _LARGEST_AREA + target_areas)
    first = np.searchsorted(ordered, groups * _LARGEST_AREA + (areas + 1) // 2)
    behind = np.searchsorted(ordered, groups * _LARGEST_AREA + 2 * areas, side='right')
    is_crowd = np.array([bool(target.get('iscrowd')) for target in targets])
    return (behind > first) | np.isin(groups, target_groups[is_crowd])
