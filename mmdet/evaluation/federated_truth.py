"""The ground truth of an LVIS set as matching needs it: an image's targets, and what the image is annotated for."""
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmdet.errors import AnnotationError

from .ground_truth import GroundTruth

LARGEST_AREA = 1e5**2
AREA_RANGES = {
    'all': (0, LARGEST_AREA),
    'small': (0, 32**2),
    'medium': (32**2, 96**2),
    'large': (96**2, LARGEST_AREA),
}
"""Areas in pixels, both ends included."""

OUTSIDE_EVERY_AREA_RANGE = 10 * LARGEST_AREA


class TruthCounts(NamedTuple):
    """What the figures must know of the ground truth: of I images, C classes, A area ranges.

    Attributes:
        image_ids: (I,) int64, ascending. An image's number is its place here.
        category_ids: (C,) int64, label -> category id.
        frequencies: (C,) str, `'r'`, `'c'` or `'f'`.
        areas: (A,) str, the names of the area ranges.
        images: (M,) int32, one for each pair of an image and a class of its targets: the image's number.
        labels: (M,) int32, of the same pairs.
        targets: (M, A) int32, targets of the pair that count in each area range.
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    frequencies: np.ndarray
    areas: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    targets: np.ndarray

    def area_number(self, area: str) -> int:
        """The number of an area range, by its name."""
        return self.areas.tolist().index(area)

    def positives(self, area: int, weights: np.ndarray | None = None) -> np.ndarray:
        """(C,) float64: targets that count in an area range, those of an image times its weight.

        Args:
            area: the range's number.
            weights: (I,); None is 1 for each.
        """
        targets = self.targets[:, area] if weights is None else self.targets[:, area] * weights[self.images]
        return np.bincount(self.labels, targets, minlength=len(self.category_ids))


class ImageTargets(NamedTuple):
    """The G targets of one image, by ascending label, those of a label in the file's order.

    Attributes:
        image: the image's number.
        labels: (G,) int64.
        boxes: (G, 4) float64, x, y, width, height.
        masks: G COCO run-length encodings, None where the ground truth was read without.
        ignored: (G, A) bool, where a match with the target neither counts nor harms.
        annotated: (C,) bool, classes that the image is annotated for: present or known to be absent.
        exhaustive: (C,) bool, False where not every object of the class may be annotated.
        area_ranges: (A, 2) float64, lowest and highest area.
    """

    image: int
    labels: np.ndarray
    boxes: np.ndarray
    masks: list[dict[str, Any]] | None
    ignored: np.ndarray
    annotated: np.ndarray
    exhaustive: np.ndarray
    area_ranges: np.ndarray


class FederatedTruth:
    """The targets and counts of a ground truth in LVIS format.

    Args:
        ground_truth: in LVIS format.
        category_ids: (C,) label -> category id; other categories are left out. None: all, in ascending order.
        area_ranges: name -> lowest and highest area of a target or detection that counts.

    Raises:
        AnnotationError: the ground truth is not in LVIS format, or has no such category.
    """

    def __init__(
        self,
        ground_truth: GroundTruth,
        category_ids: Sequence[int] | None = None,
        area_ranges: Mapping[str, tuple[float, float]] | None = None,
    ):
        check_lvis_format(ground_truth)
        area_ranges = {'all': AREA_RANGES['all']} if area_ranges is None else dict(area_ranges)
        self.ground_truth = ground_truth
        self.category_ids = np.array(list(ground_truth.categories if category_ids is None else category_ids), np.int64)
        self.area_ranges = np.array(list(area_ranges.values()), np.float64)
        self._area_names = np.array(list(area_ranges))
        self._numbers = {image_id: number for number, image_id in enumerate(sorted(ground_truth.images))}
        self._labels = {category_id: label for label, category_id in enumerate(self.category_ids.tolist())}
        for category_id in self._labels:
            if category_id not in ground_truth.categories:
                raise AnnotationError(f'{ground_truth.path}: has no category {category_id}, which is to be evaluated')
        self._counts: TruthCounts | None = None

    @property
    def counts(self) -> TruthCounts:
        """Of all images, whether they are tested or not."""
        if self._counts is None:
            self._counts = self._count()
        return self._counts

    def targets(self, image_id: int) -> ImageTargets:
        """The targets of one image.

        Raises:
            AnnotationError: an image that is not in the ground truth.
        """
        if image_id not in self.ground_truth.images:
            raise AnnotationError(f'{self.ground_truth.path}: has no image {image_id}, which was tested')
        return self.targets_among(image_id, self.ground_truth.annotations(image_id))

    def targets_among(self, image_id: int, annotations: Sequence[dict[str, Any]]) -> ImageTargets:
        """The targets of one image, from its annotations or from `lvis_target`s of them."""
        image = self.ground_truth.images[image_id]
        targets = self._known(annotations)
        labels = np.array([self._labels[target['category_id']] for target in targets], np.int64)
        order = np.argsort(labels, kind='stable')
        labels, targets = labels[order], [targets[index] for index in order.tolist()]
        annotated = np.zeros(len(self.category_ids), bool)
        annotated[labels] = annotated[self._labels_of(image['neg_category_ids'])] = True
        exhaustive = np.ones(len(self.category_ids), bool)
        exhaustive[self._labels_of(image['not_exhaustive_category_ids'])] = False
        return ImageTargets(
            image=self._numbers[image_id],
            labels=labels,
            boxes=np.array([target['bbox'] for target in targets], np.float64).reshape(-1, 4),
            masks=[target['segmentation'] for target in targets] if self.ground_truth.with_masks else None,
            ignored=outside_of(self.area_ranges, np.array([target['area'] for target in targets], np.float64)),
            annotated=annotated,
            exhaustive=exhaustive,
            area_ranges=self.area_ranges,
        )

    def _known(self, annotations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        targets = map(lvis_target, annotations)
        return [target for target in targets if target is not None and target['category_id'] in self._labels]

    def _labels_of(self, category_ids: Sequence[int]) -> list[int]:
        return [self._labels[category_id] for category_id in category_ids if category_id in self._labels]

    def _count(self) -> TruthCounts:
        images, labels, areas = [], [], []
        for image_id, number in self._numbers.items():
            for target in self._known(self.ground_truth.annotations(image_id)):
                images.append(number)
                labels.append(self._labels[target['category_id']])
                areas.append(target['area'])
        counted = ~outside_of(self.area_ranges, np.array(areas, np.float64))
        num_classes = len(self.category_ids)
        pairs, pair_of = np.unique(
            np.array(images, np.int64) * num_classes + np.array(labels, np.int64), return_inverse=True
        )
        targets = np.zeros((len(pairs), len(self.area_ranges)), np.int32)
        np.add.at(targets, pair_of, counted)
        categories = self.ground_truth.categories
        return TruthCounts(
            image_ids=np.array(list(self._numbers), np.int64),
            category_ids=self.category_ids,
            frequencies=np.array([categories[category_id]['frequency'] for category_id in self._labels]),
            areas=self._area_names,
            images=(pairs // num_classes).astype(np.int32),
            labels=(pairs % num_classes).astype(np.int32),
            targets=targets,
        )


def outside_of(area_ranges: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """(N, A) bool: which of N areas are outside each of the ranges (A, 2)."""
    return (areas[:, None] < area_ranges[:, 0]) | (areas[:, None] > area_ranges[:, 1])


def lvis_target(annotation: dict[str, Any]) -> dict[str, Any] | None:
    """An annotation as LVIS's protocol takes it: None of one of zero area, and an ignored one outside every area range.

    The protocol knows no crowds. It tries ignored annotations and those outside the area range in the same way: last.
    """
    if annotation['area'] <= 0:
        return None
    target = {key: value for key, value in annotation.items() if key not in ('iscrowd', 'ignore')}
    if annotation.get('ignore'):
        target['area'] = OUTSIDE_EVERY_AREA_RANGE
    return target


def check_lvis_format(ground_truth: GroundTruth) -> None:
    """Raises AnnotationError where the file is not in LVIS format."""
    path = ground_truth.path
    for category in ground_truth.categories.values():
        if category.get('frequency') not in ('r', 'c', 'f'):
            raise AnnotationError(
                f"{path}: category {category['id']} has no 'frequency' r, c or f, so this is not LVIS format; "
                f'convert it with tools/dataset_converters/coco2lvis.py or evaluate with CocoMetric'
            )
    for image in ground_truth.images.values():
        for key in ('neg_category_ids', 'not_exhaustive_category_ids'):
            if key not in image:
                raise AnnotationError(
                    f"{path}: image {image['id']} has no '{key}', so this is not LVIS format; convert it with "
                    f'tools/dataset_converters/coco2lvis.py or evaluate with CocoMetric'
                )
