"""Means over groups of classes: all, rare, common, frequent, and those of similarly many training instances."""
from collections.abc import Sequence

import numpy as np

from .match_table import FREQUENCIES
from .training_instance_bins import mean_of_known, training_instance_bins


class ClassGroups:
    """Which of C classes are in AP, APr, APc, APf and, where training instances are known, in AP1, AP2, ...

    Args:
        frequencies: (C,) str, `'r'`, `'c'` or `'f'`.
        instance_count: (C,) training instances of each class; without them there are no bins.
        edges: ascending lower edges of the bins, see `training_instance_bins`.
    """

    def __init__(
        self,
        frequencies: Sequence[str],
        instance_count: Sequence[int] | None = None,
        edges: Sequence[int] = (1, 10, 100, 1000),
    ):
        frequencies = np.asarray(frequencies)
        self._members = {'AP': np.ones(len(frequencies), bool)}
        self._members |= {f'AP{frequency}': frequencies == frequency for frequency in FREQUENCIES}
        self._bins: list[str] = []
        if instance_count is not None:
            bins = training_instance_bins(instance_count, edges)
            self._bins = [f'AP{number}' for number in range(1, len(edges) + 1)]
            self._members |= {name: bins == number for number, name in enumerate(self._bins)}

    @property
    def members(self) -> dict[str, np.ndarray]:
        """The groups' names -> (C,) bool."""
        return dict(self._members)

    def means(self, class_ap: np.ndarray) -> dict[str, np.ndarray]:
        """The mean of each group, and the mean of the bins as 'bAP' where there are bins.

        A class without AP counts in no group, a bin without a class that counts not in bAP.

        Args:
            class_ap: (..., C) AP of each class, NaN of a class without.

        Returns:
            Names -> (...,), NaN of a group without a class that counts.
        """

        def mean(values: np.ndarray) -> np.ndarray:
            return np.apply_along_axis(mean_of_known, -1, values)

        means = {name: mean(class_ap[..., members]) for name, members in self._members.items()}
        if self._bins:
            means['bAP'] = mean(np.stack([means[name] for name in self._bins], axis=-1))
        return means
