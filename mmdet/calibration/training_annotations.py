"""What calibrators may ask of the training annotations, in calibration only."""
from functools import cached_property
from typing import Any

import numpy as np

from mmdet.errors import ConfigError


class TrainingAnnotations:
    """The annotations of a training set, whatever images its config leaves out.

    Args:
        dataset: a `CocoDataset`, one derived from it, or a wrapper of such.
    """

    def __init__(self, dataset: Any):
        self._dataset = dataset

    @cached_property
    def num_images(self) -> int:
        """All images of the annotation files, those without an object too."""
        return self._ask('num_annotated_images')

    @cached_property
    def box_centres(self) -> tuple[np.ndarray, np.ndarray]:
        """(M, 2) float64, each box's centre as shares of its image's width and height, and its (M,) int64 label."""
        return self._ask('box_centres')

    def _ask(self, method: str) -> Any:
        if not hasattr(self._dataset, method):
            raise ConfigError(
                f'train_dataloader.dataset is {type(self._dataset).__name__}, which has no `{method}` for the '
                'calibrator; calibrate on a CocoDataset or one derived from it'
            )
        return getattr(self._dataset, method)()
