"""How often each class occurs in training: what makes a class rare."""
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClassFrequency:
    """Training instances and images of every class, in label order.

    Counts are taken as the annotation file lists them, crowds included, before any image is filtered
    out: SimCal's threshold T and the evaluation bins are defined on these.

    Attributes:
        names: the C class names.
        instance_count: (C,) int64, annotated instances.
        image_count: (C,) int64, images with at least one instance.
    """

    names: tuple[str, ...]
    instance_count: np.ndarray
    image_count: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, 'names', tuple(self.names))
        for field in ('instance_count', 'image_count'):
            counts = np.asarray(getattr(self, field), dtype=np.int64)
            if counts.shape != (len(self.names),) or (counts < 0).any():
                raise ValueError(f'{field} must hold one non-negative number for each of {len(self.names)} classes')
            object.__setattr__(self, field, counts)

    def __len__(self) -> int:
        return len(self.names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClassFrequency) and self.to_dict() == other.to_dict()

    def to_dict(self) -> dict[str, list]:
        """Plain lists, for a checkpoint's meta or a JSON file."""
        return dict(
            names=list(self.names),
            instance_count=self.instance_count.tolist(),
            image_count=self.image_count.tolist(),
        )

    @classmethod
    def from_dict(cls, counts: Mapping[str, list]) -> 'ClassFrequency':
        """The inverse of `to_dict`."""
        return cls(tuple(counts['names']), np.array(counts['instance_count']), np.array(counts['image_count']))
