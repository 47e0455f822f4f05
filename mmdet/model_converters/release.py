"""What the converters of released detectors, those of SimCal and of BAGS, have in common."""
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor

import mmdet
from mmdet.errors import ConfigError

from .class_counts import ClassCounts
from .mmdet_legacy import Upgraded


class Converted(NamedTuple):
    """What a conversion found.

    Attributes:
        detector: the upgraded detector.
        calibrator: its config; None of a detector that is not calibrated.
        num_classes: C, without background.
        num_stages: box heads, one after another.
        left_aside: full names of objects in the files that are not data, and were not read.
    """

    detector: Upgraded
    calibrator: dict[str, Any] | None
    num_classes: int
    num_stages: int
    left_aside: list[str]

    @property
    def head(self) -> str | None:
        """The kind of SimCal's heads; None where there are none."""
        return None if self.calibrator is None else self.calibrator.get('head')


def box_heads(weights: Mapping[str, Tensor]) -> list[str]:
    """The names of the box heads: one, or those of a cascade in their order."""
    heads = {name.removesuffix('.fc_cls.weight') for name in weights if name.endswith('.fc_cls.weight')}
    return sorted(heads, key=lambda name: [int(part) for part in name.split('.') if part.isdigit()])


def detector_meta(classes: list[str] | None, counts: ClassCounts | None, num_classes: int) -> dict[str, Any]:
    """What a test needs to know beside the weights and a calibrator's config.

    Args:
        classes: names in the detector's file, if it has them; those of the counts come first.
        counts: training counts.
        num_classes: C of the detector.

    Raises:
        ConfigError: counts of another number of classes.
    """
    meta = dict(version=mmdet.__version__, epoch=0, iter=0, dataset_meta={})
    if classes is not None:
        meta['dataset_meta']['classes'] = classes
    if counts is not None:
        if len(counts.frequency) != num_classes:
            raise ConfigError(
                f'the training counts are of {len(counts.frequency)} classes, the detector has {num_classes}: '
                'give the data it was trained on'
            )
        frequency = counts.frequency
        if counts.named:
            meta['dataset_meta']['classes'] = list(frequency.names)
        elif classes is not None:
            frequency = replace(frequency, names=classes)
        meta['class_frequency'] = frequency.to_dict()
        if counts.category_ids is not None:
            meta['dataset_meta']['category_ids'] = counts.category_ids
    return meta
